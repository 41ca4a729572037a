"""Settings of vectors: the model, encoding, the index, and how its recall is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mmindex.core.config.values import Section, Text


class ModelConfig(Section):
    """Which model encodes images and texts."""

    name: Text | None = None
    """An open_clip model name, `embedded`, `local-dir:PATH` or `hf-hub:ORG/REPO`.

    By default `embedded` for drawn scenes, and `ViT-B-32` for everything else. Another model means
    that everything is encoded again."""

    pretrained: Text | None = None
    """The weights: a tag, a path to a `.safetensors` file, or `none` for an untrained model.

    By default `laion2b_s34b_b79k` where the default model is used."""

    allow_pickle_weights: bool = False
    """Also load `.pt` and `.bin` weights, with PyTorch's weights-only loader.

    Set it for weights from a source you trust that have no `.safetensors` form."""


class EncodeConfig(Section):
    """How images and texts become vectors."""

    device: str = "auto"
    """`auto` (all GPUs, else the CPU), `cpu`, `cuda` (all GPUs), `cuda:0` or `cuda:0,1`.

    Set it to share a machine with other work."""

    # 64 keeps two cores busy and an 8-GB card far from full for ViT-B-32.
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Images in one batch on each device.

    Raise it on a large GPU; lower it when the GPU runs out of memory."""

    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Processes that decode images; by default one for each core, at most 16.

    Raise it when the build names decoding as its bottleneck; lower it to save memory. 0 decodes in
    the main process, where one broken image can end the run."""

    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Arithmetic of the model. `auto` is fp32 on a CPU, bf16 on a GPU (fp16 on older ones).

    `int8` is faster on some CPUs at a small loss in recall. Another precision means that everything
    is encoded again."""

    # The unit of resume.
    shard_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 8_192
    """Vectors in one shard. A kill costs at most one shard of work.

    Raise it for tens of millions of images, to have fewer files."""


class IndexConfig(Section):
    """Which index, how good, and how large it may be."""

    kind: str = "auto"
    """`auto`, `exact`, `ivfpq`, `ivfflat`, `sq8`, or a FAISS factory string.

    `auto` is exact search below 10,000 vectors and IVF-PQ from there on. Set it to force one."""

    recall_target: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Share of the exact ten best answers that the index has to find.

    Raise it for better answers, lower it for faster ones."""

    seed: int = 0
    """Seed of the samples that train and tune the index.

    Change it to see how much the index depends on its sample."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads for FAISS; by default one for each core.

    Lower it to share a machine with other work."""

    memory_bytes: Annotated[int, Field(ge=1)] | None = None
    """Most memory that one index may take when it is searched; no limit by default.

    Set it when the index has to fit a small machine: codes get shorter, and re-ranking deeper."""

    gpu: Literal["auto", "never", "always"] = "auto"
    """Whether FAISS uses a GPU.

    `never` keeps the GPU free; `always` makes a missing GPU an error."""

    retrain_at: Annotated[float, Field(gt=0)] = 0.2
    """Share of the trained vectors that may be added or removed before an index is trained again.

    Raise it when training takes hours; recall is measured after each change in any case."""

    refine: Literal["fp16", "sq8"] = "fp16"
    """What a quantised index is re-ranked with: float16, or 8 bits per number.

    `sq8` takes half the disk space, at a small loss in recall."""


class EvaluateConfig(Section):
    """How recall is measured."""

    # COCO's 25,010 captions fit whole.
    max_queries: Annotated[int, Field(ge=1)] = 50_000
    """Most queries in each direction. Larger corpora are sampled, and the report says so.

    Lower it for a faster evaluation with wider intervals."""

    seed: int = 0
    """Seed of the sample of queries.

    Change it to measure with other queries."""
