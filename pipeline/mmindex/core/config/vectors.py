"""Settings of vectors: the model, encoding, the index, and its evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mmindex.core.config.values import Section, Text


class ModelConfig(Section):
    """The model that encodes images and texts."""

    name: Text | None = None
    """`photos`, `embedded`, an open_clip model name, `local-dir:PATH` or `hf-hub:ORG/REPO`.

    The default is `embedded` for drawn scenes, `unknown` for vectors of other programs, and
    `ViT-B-32` for everything else. If you change the model, everything is encoded again."""

    pretrained: Text | None = None
    """The weights: a tag, a path to a `.safetensors` file, or `none` for an untrained model.

    The default for the default model is `laion2b_s34b_b79k`."""

    allow_pickle_weights: bool = False
    """Also load `.pt` and `.bin` weights, with PyTorch's weights-only loader.

    Set it for weights from a trusted source that are not available as `.safetensors`."""


class EncodeConfig(Section):
    """Encoding of images and texts."""

    device: str = "auto"
    """`auto` (all GPUs, or the CPU if there is none), `cpu`, `cuda` (all GPUs), `cuda:0` or
    `cuda:0,1`.

    Set it to share a machine with other work."""

    # With ViT-B-32, 64 keeps two cores busy and uses little of a GPU with 8 GB.
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Number of images in a batch on each device.

    Raise it on a large GPU. Lower it if the GPU runs out of memory."""

    cores: Annotated[int, Field(ge=1, le=1_024)] | None = None
    """Number of CPU cores for the threads of the model and for the decode workers.

    By default, encoding uses all cores that are available to the process. Lower it to share a
    machine with other work. On a cluster, it is the number of cores for each unit. A different
    number of threads can change the last digits of a vector."""

    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Number of processes that decode images. The default is one per core, at most 16 if the
    model runs on a CPU.

    Raise it if the build reports decoding as its bottleneck. Lower it to save memory. With 0,
    images are decoded in the main process, where one damaged image can end the run."""

    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Arithmetic of the model. `auto` is fp32 on a CPU, and bf16 on a GPU (fp16 on older ones, and
    for the model for photographs).

    `int8` is faster on some CPUs, with a small loss in recall. If you change the precision,
    everything is encoded again."""

    # The unit of resume.
    shard_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 8_192
    """Number of vectors in a shard. A killed run loses at most one shard of work.

    Raise it for tens of millions of images to get fewer files."""


class IndexConfig(Section):
    """Type, quality and size of the index."""

    kind: str = "auto"
    """`auto`, `exact`, `ivfpq`, `ivfflat`, `sq8`, or a FAISS factory string.

    `auto` is exact search below 10,000 vectors, and IVF-PQ otherwise. Set it to use a specific
    type."""

    recall_target: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Share of the ten best exact answers that the index must find.

    Raise it for better answers. Lower it for faster answers."""

    seed: int = 0
    """Seed of the samples for training and tuning the index.

    Change it to see how much the index depends on the sample."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """Number of threads for FAISS. The default is one per core.

    Lower it to share a machine with other work."""

    fill_processes: Annotated[int, Field(ge=1, le=256)] = 1
    """Number of processes that fill a new index. They share the threads of FAISS.

    Raise it on machines with many cores, where one process does not keep all of them busy. Each
    process needs memory for its part of the index. On a cluster, the nodes fill the index."""

    memory_bytes: Annotated[int, Field(ge=1)] | None = None
    """Largest memory use of one index during search. By default, there is no limit.

    Set it if the index must fit in the memory of a small machine: it then uses shorter codes and
    re-ranks more candidates."""

    gpu: Literal["auto", "never", "always"] = "auto"
    """Whether FAISS uses a GPU.

    With `never`, the GPU stays free for other work. With `always`, a missing GPU is an error."""

    retrain_at: Annotated[float, Field(gt=0)] = 0.2
    """Share of added and removed vectors after which an index is trained again.

    Raise it if training takes hours. Recall is always measured after a change."""

    refine: Literal["fp16", "sq8"] = "fp16"
    """Precision of the vectors that re-rank the hits of a quantised index: float16 or 8 bits.

    `sq8` halves the disk space of these vectors, with a small loss in recall."""

    keywords: bool = True
    """Whether to index the words of captions, file names and metadata, for `--keywords` and
    `--hybrid`.

    Turn it off to save disk space and build time."""


class EvaluateConfig(Section):
    """Measurement of recall."""

    # Enough for all 25,010 captions of COCO's test split.
    max_queries: Annotated[int, Field(ge=1)] = 50_000
    """Largest number of queries in each direction.

    Larger corpora are sampled, and the report states this. Lower it for a faster evaluation with
    wider intervals."""

    seed: int = 0
    """Seed of the sample of queries.

    Change it to measure with other queries."""


class SearchConfig(Section):
    """Ranking of hits."""

    hubness: Literal["off", "auto"] = "off"
    """Whether text queries rank images lower if they are similar to many texts (hubs). Only the
    order of hits changes, not their scores.

    With `auto`, each build that changes an index computes a correction from captions. It is used
    only if it improves the results for other captions."""
