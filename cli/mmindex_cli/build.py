"""``build`` and the single stages ``crawl``, ``encode``, ``index``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmindex_cli.common import StoreOption, run_id, store_path
from mmindex_cli.fetch_options import (
    BaseUrlOption,
    ChecksumOption,
    ContactOption,
    CorporaOption,
    HostOption,
    PrivateOption,
    ProxyOption,
    RehashOption,
    fetch_values,
)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings; flags win over it.")
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="KIND:WHERE[#SPLIT]",
        help="What to index, e.g. coco:val2017 (fetched), coco:PATH, coco-karpathy:PATH#test, "
        "flickr30k:PATH, folder:PATH, urls:FILE, webdataset:PATTERN, parquet:PATTERN, "
        "scenes:COUNT@SEED. May be repeated.",
    ),
]
AllFilesOption = Annotated[
    bool, typer.Option("--all-files", help="folder: sources try every file by its content.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(help="open_clip model name, `embedded`, local-dir:PATH or hf-hub:ORG/REPO."),
]
PretrainedOption = Annotated[
    str | None,
    typer.Option(help="Weights: a tag, a .safetensors path, or `none` for an untrained model."),
]
PickleOption = Annotated[
    bool,
    typer.Option("--allow-pickle-weights", help="Also load .pt/.bin weights (weights-only)."),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda (all), cuda:N or cuda:N,M.")
]
BatchOption = Annotated[int | None, typer.Option(help="Images in a batch. [default: 64]")]
WorkersOption = Annotated[
    int | None, typer.Option(help="Decode processes; 0: none. [default: one a core]")
]
PrecisionOption = Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")]
IndexOption = Annotated[
    str | None,
    typer.Option("--index", help="auto, exact, ivfpq, ivfflat, sq8, or a FAISS factory string."),
]
RecallOption = Annotated[
    float | None, typer.Option(help="Share of exact answers the index must find. [default: 0.95]")
]
QuarantineOption = Annotated[
    float | None, typer.Option(help="Share of items that may be unusable. [default: 0.01]")
]
RemovedOption = Annotated[
    float | None,
    typer.Option(help="Share of the corpus that may vanish since the last build. [default: 0.2]"),
]


def build(
    store: StoreOption = None,
    config: ConfigOption = None,
    source: SourceOption = None,
    all_files: AllFilesOption = False,
    model: ModelOption = None,
    pretrained: PretrainedOption = None,
    allow_pickle_weights: PickleOption = False,
    device: DeviceOption = None,
    batch_size: BatchOption = None,
    workers: WorkersOption = None,
    precision: PrecisionOption = None,
    index: IndexOption = None,
    recall_target: RecallOption = None,
    max_quarantine: QuarantineOption = None,
    max_removed: RemovedOption = None,
    base_url: BaseUrlOption = None,
    corpora: CorporaOption = None,
    require_checksum: ChecksumOption = False,
    per_host_concurrency: HostOption = None,
    contact: ContactOption = None,
    allow_private: PrivateOption = False,
    use_env_proxy: ProxyOption = False,
    rehash: RehashOption = False,
) -> None:
    """Crawl, encode, index, evaluate and publish.

    With no source: go on with what the store was built from; in a new store, drawn scenes.

    Example: mmindex build --source coco:~/coco#val2017 --index auto
    """
    _run(
        store,
        config,
        ("crawl", "encode", "index", "evaluate"),
        {
            "source": _sources(source, all_files),
            **fetch_values(
                base_url=base_url,
                corpora=corpora,
                require_checksum=require_checksum,
                per_host_concurrency=per_host_concurrency,
                contact=contact,
                allow_private=allow_private,
                use_env_proxy=use_env_proxy,
                rehash=rehash,
            ),
            **_model_values(model, pretrained, allow_pickle_weights),
            "encode.device": device,
            "encode.batch_size": batch_size,
            "encode.workers": workers,
            "encode.precision": precision,
            "index.kind": index,
            "index.recall_target": recall_target,
            "limits.max_quarantine": max_quarantine,
            "limits.max_removed": max_removed,
        },
    )


def crawl(
    store: StoreOption = None,
    config: ConfigOption = None,
    source: SourceOption = None,
    all_files: AllFilesOption = False,
    max_quarantine: QuarantineOption = None,
    max_removed: RemovedOption = None,
    base_url: BaseUrlOption = None,
    corpora: CorporaOption = None,
    require_checksum: ChecksumOption = False,
    per_host_concurrency: HostOption = None,
    contact: ContactOption = None,
    allow_private: PrivateOption = False,
    use_env_proxy: ProxyOption = False,
    rehash: RehashOption = False,
) -> None:
    """List and hash the images and captions of the sources.

    Example: mmindex crawl --source folder:~/Pictures
    """
    values = {
        "source": _sources(source, all_files),
        **fetch_values(
            base_url=base_url,
            corpora=corpora,
            require_checksum=require_checksum,
            per_host_concurrency=per_host_concurrency,
            contact=contact,
            allow_private=allow_private,
            use_env_proxy=use_env_proxy,
            rehash=rehash,
        ),
        "limits.max_quarantine": max_quarantine,
        "limits.max_removed": max_removed,
    }
    _run(store, config, ("crawl",), values)


def encode(
    store: StoreOption = None,
    config: ConfigOption = None,
    model: ModelOption = None,
    pretrained: PretrainedOption = None,
    allow_pickle_weights: PickleOption = False,
    device: DeviceOption = None,
    batch_size: BatchOption = None,
    workers: WorkersOption = None,
    precision: PrecisionOption = None,
    max_quarantine: QuarantineOption = None,
) -> None:
    """Turn the crawled images and captions into vectors; what is encoded already is reused.

    Example: mmindex encode --model ViT-B-32 --pretrained laion2b_s34b_b79k
    """
    values = {
        **_model_values(model, pretrained, allow_pickle_weights),
        "encode.device": device,
        "encode.batch_size": batch_size,
        "encode.workers": workers,
        "encode.precision": precision,
        "limits.max_quarantine": max_quarantine,
    }
    _run(store, config, ("encode",), values)


def index(
    store: StoreOption = None,
    config: ConfigOption = None,
    index: IndexOption = None,
    recall_target: RecallOption = None,
) -> None:
    """Build the image index and the text index over the vectors.

    Example: mmindex index --index ivfpq --recall-target 0.98
    """
    _run(store, config, ("index",), {"index.kind": index, "index.recall_target": recall_target})


def _sources(specs: list[str] | None, all_files: bool) -> list[dict[str, Any]] | None:
    if not specs:
        return None
    return [{"spec": spec, "all_files": all_files} for spec in specs]


def _model_values(model: str | None, pretrained: str | None, allow_pickle: bool) -> dict[str, Any]:
    return {
        "model.name": model,
        "model.pretrained": pretrained,
        "model.allow_pickle_weights": allow_pickle or None,
    }


def _run(
    store: Path | None, config: Path | None, stages: tuple[str, ...], values: dict[str, Any]
) -> None:
    from mmindex.run import run, settings
    from mmindex_cli.summary import print_summary

    root = store_path(store)
    summary = run(root, settings(root, config, values), run_id(), stages)
    print_summary(root, summary.manifest, published=summary.published)
