"""``build`` and the single stages ``crawl``, ``encode``, ``index``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mmindex.core.errors import UsageError
from mmindex.store.place import require_writable
from mmindex_cli.build_options import (
    AllFilesOption,
    BatchOption,
    ConfigOption,
    DeviceOption,
    DryRunOption,
    ExcludeOption,
    IncludeOption,
    IndexOption,
    MetricsOption,
    ModelOption,
    PickleOption,
    PrecisionOption,
    PretrainedOption,
    QuarantineOption,
    RecallOption,
    RefineOption,
    RemovedOption,
    SourceOption,
    WorkersOption,
)
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
from mmindex_cli.options import FormatOption

if TYPE_CHECKING:
    from mmindex.upkeep.metrics import MetricsFile


def build(
    store: StoreOption = None,
    config: ConfigOption = None,
    source: SourceOption = None,
    all_files: AllFilesOption = False,
    exclude: ExcludeOption = None,
    include: IncludeOption = None,
    model: ModelOption = None,
    pretrained: PretrainedOption = None,
    allow_pickle_weights: PickleOption = False,
    device: DeviceOption = None,
    batch_size: BatchOption = None,
    workers: WorkersOption = None,
    precision: PrecisionOption = None,
    index: IndexOption = None,
    recall_target: RecallOption = None,
    refine: RefineOption = None,
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
    dry_run: DryRunOption = False,
    metrics_file: MetricsOption = None,
    output_format: FormatOption = "text",
) -> None:
    """Crawl, encode, index, evaluate and publish.

    With no source: go on with what the store was built from; in a new store, drawn scenes.

    Example: mmindex build --source coco:~/coco#val2017 --index auto
    """
    values = {
        "source": _sources(source, all_files, exclude, include),
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
        "index.refine": refine,
        "limits.max_quarantine": max_quarantine,
        "limits.max_removed": max_removed,
    }
    job = _Job(store_path(store), config, values, output_format)
    if dry_run:
        job.foresee()
    else:
        job.run(("crawl", "encode", "index", "evaluate"), metrics_file)


def crawl(
    store: StoreOption = None,
    config: ConfigOption = None,
    source: SourceOption = None,
    all_files: AllFilesOption = False,
    exclude: ExcludeOption = None,
    include: IncludeOption = None,
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
    metrics_file: MetricsOption = None,
    output_format: FormatOption = "text",
) -> None:
    """List and hash the images and captions of the sources.

    Example: mmindex crawl --source folder:~/Pictures
    """
    values = {
        "source": _sources(source, all_files, exclude, include),
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
    _Job(store_path(store), config, values, output_format).run(("crawl",), metrics_file)


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
    metrics_file: MetricsOption = None,
    output_format: FormatOption = "text",
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
    _Job(store_path(store), config, values, output_format).run(("encode",), metrics_file)


def index(
    store: StoreOption = None,
    config: ConfigOption = None,
    index: IndexOption = None,
    recall_target: RecallOption = None,
    refine: RefineOption = None,
    metrics_file: MetricsOption = None,
    output_format: FormatOption = "text",
) -> None:
    """Build the image index and the text index over the vectors.

    Example: mmindex index --index ivfpq --recall-target 0.98
    """
    values = {
        "index.kind": index,
        "index.recall_target": recall_target,
        "index.refine": refine,
    }
    _Job(store_path(store), config, values, output_format).run(("index",), metrics_file)


def _sources(
    specs: list[str] | None,
    all_files: bool,
    exclude: list[str] | None,
    include: list[str] | None,
) -> list[dict[str, Any]] | None:
    if not specs:
        if exclude or include:
            raise UsageError(
                "--exclude and --include belong to a --source",
                "repeat the --source, or put `exclude` into the configuration's [[source]]",
            )
        return None
    globs = {"exclude": exclude or [], "include": include or []}
    return [{"spec": spec, "all_files": all_files, **globs} for spec in specs]


def _model_values(model: str | None, pretrained: str | None, allow_pickle: bool) -> dict[str, Any]:
    return {
        "model.name": model,
        "model.pretrained": pretrained,
        "model.allow_pickle_weights": allow_pickle or None,
    }


@dataclass(frozen=True, slots=True)
class _Job:
    """What to run, and how to print it."""

    root: Path
    config: Path | None
    values: dict[str, Any]
    output_format: str

    def run(self, stages: tuple[str, ...], metrics_file: Path | None) -> None:
        """Run stages and print what became of the store."""
        with _metrics(metrics_file, self.root) as metrics:
            require_writable(self.root)  # before the imports below: they take most of a second
            from mmindex.runs.run import run, settings
            from mmindex_cli.summary import print_run

            config = settings(self.root, self.config, self.values)
            if config.run.metrics_file is not None and metrics_file is None:
                metrics.path = Path(config.run.metrics_file).expanduser()
            summary = run(self.root, config, run_id(), stages)
            print_run(self.root, summary, self.output_format)

    def foresee(self) -> None:
        """Print what a build would do; the exit code is the one that it would give."""
        require_writable(self.root)
        from mmindex.runs.dry_run import dry_run
        from mmindex.runs.run import settings
        from mmindex_cli.summary import print_forecast

        config = settings(self.root, self.config, self.values)
        forecast = dry_run(self.root, config, run_id())
        print_forecast(forecast, self.output_format)
        if forecast.exit_code:
            raise typer.Exit(forecast.exit_code)


def _metrics(path: Path | None, root: Path) -> MetricsFile:
    from mmindex.upkeep.metrics import MetricsFile

    return MetricsFile(path, root, run_id())
