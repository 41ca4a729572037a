"""Metrics of the last run, for the textfile collector of Prometheus node exporter.

A failed run keeps the values of the last success, so alerts can use its age. A run that finds the
store busy writes nothing, because the other run writes the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mmindex.core.durable import file_aside
from mmindex.core.errors import BusyError, MmindexError, StorageError, exit_code_of
from mmindex.core.progress import get_logger
from mmindex.runs.report import RunReport, describe_error, last_success, load_report, now
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest

Samples = dict[str, list[tuple[dict[str, str], float]]]

_RUN: Final = {
    "mmindex_last_run_timestamp_seconds": "When the last run ended.",
    "mmindex_last_run_exit_code": "Exit code of the last run; 0 means success.",
    "mmindex_last_run_duration_seconds": "Wall time of the last run.",
    "mmindex_last_run_stage_duration_seconds": "Wall time of each stage of the last run.",
    "mmindex_last_run_peak_memory_bytes": "Peak memory of the last run, by process.",
}
_STATE: Final = {
    "mmindex_last_success_timestamp_seconds": "When the last successful run ended.",
    "mmindex_version": "The published version.",
    "mmindex_images": "Searchable images.",
    "mmindex_captions": "Searchable captions.",
    "mmindex_quarantined": "Items kept out of the index.",
    "mmindex_published_bytes": "Size of the objects of the published version in bytes.",
    "mmindex_recall_ratio": "Recall at K of the model, by direction, with exact search.",
    "mmindex_index_recall_ratio": "Share of the ten best answers that the index finds, by side.",
}
_HELP: Final = _RUN | _STATE
_TOP: Final = ("1", "5", "10")


@dataclass(slots=True)
class MetricsFile:
    """Context manager that writes the metrics when a run ends for any reason.

    If writing fails, an error is raised after a successful run. After a failed run, the error of
    the run is raised, and the other one is logged.

    Attributes:
        path: the file; None writes nothing. It can be set later.
        root: the folder of the store; the label ``store`` of every metric.
        run_id: the run id.
    """

    path: Path | None
    root: Path
    run_id: str

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self.path is None:
            return
        report = load_report(Layout(self.root.absolute()), self.run_id)
        if report is None:
            if error is None or isinstance(error, BusyError):
                return
            report = _of_error(self.run_id, error)
        try:
            write_metrics(self.path, self.root, report)
        except MmindexError as second:
            if error is None:
                raise
            get_logger("run").warning("the metrics cannot be written", why=second.message)


def _of_error(run_id: str, error: BaseException) -> RunReport:
    """Return the metrics of a run that failed before it opened the store."""
    moment, code = now(), exit_code_of(error)
    return RunReport(run_id, "failed", code, moment, moment, error=describe_error(error))


def write_metrics(path: Path, root: Path, report: RunReport) -> None:
    """Replace the file atomically after a run.

    Args:
        path: the file; node exporter reads those that end in ``.prom``.
        root: the store.
        report: the run.

    Raises:
        StorageError: it cannot be written; the old file stays.
    """
    # The import takes a tenth of a second, and most runs do not need it.
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    store = str(root.absolute()).encode("utf-8", "replace").decode()
    samples = {**_kept(path, store), **_state(Layout(root.absolute())), **_of_run(report)}
    registry = CollectorRegistry()
    for name, text in _HELP.items():
        found = samples.get(name)
        if found:
            gauge = Gauge(name, text, ["store", *found[0][0]], registry=registry)
            for labels, value in found:
                gauge.labels(store=store, **labels).set(value)
    try:
        with file_aside(path) as aside:
            aside.write_bytes(generate_latest(registry))
    except OSError as error:
        raise StorageError(
            f"{path}: the metrics cannot be written: {error.strerror or error}",
            "the run itself is not affected; use a file in an existing, writable folder",
        ) from error


def _of_run(report: RunReport) -> Samples:
    return {
        "mmindex_last_run_timestamp_seconds": [({}, report.ended.timestamp())],
        "mmindex_last_run_exit_code": [({}, report.exit_code)],
        "mmindex_last_run_duration_seconds": [({}, report.total_seconds)],
        "mmindex_last_run_stage_duration_seconds": [
            ({"stage": stage}, seconds) for stage, seconds in report.seconds.items()
        ],
        "mmindex_last_run_peak_memory_bytes": [
            ({"process": "main"}, report.peak_rss_bytes),
            ({"process": "largest child"}, report.peak_child_rss_bytes),
        ],
    }


def _state(layout: Layout) -> Samples:
    """Return the metrics of the store; empty if it cannot be read."""
    samples: Samples = {}
    try:
        success = last_success(layout)
        if success is not None:
            ended = success.ended.timestamp()
            samples["mmindex_last_success_timestamp_seconds"] = [({}, ended)]
        manifest = versions.read_current(layout)
    except MmindexError:  # the exit code shows the failure, and the earlier values are kept
        return samples
    return samples if manifest is None else {**samples, **_of_manifest(manifest)}


def _of_manifest(manifest: Manifest) -> Samples:
    counts, evaluation = manifest.counts, manifest.evaluation or {}
    size = sum({ref.sha256: ref.bytes for ref in manifest.objects}.values())
    recall = [
        ({"direction": direction, "k": k}, evaluation[direction][f"r@{k}"] / 100)
        for direction in ("text_to_image", "image_to_text")
        if evaluation.get(direction)
        for k in _TOP
    ]
    found = evaluation.get("index_recall@10") or {}
    return {
        "mmindex_version": [({}, manifest.version)],
        "mmindex_images": [({}, counts.indexed)],
        "mmindex_captions": [({}, counts.captions)],
        "mmindex_quarantined": [({}, counts.quarantined)],
        "mmindex_published_bytes": [({}, size)],
        "mmindex_recall_ratio": recall,
        "mmindex_index_recall_ratio": [
            ({"side": side}, value / 100) for side, value in found.items() if value is not None
        ],
    }


def _kept(path: Path, store: str) -> Samples:
    """Return the metrics of the store from an earlier run."""
    from prometheus_client.parser import text_string_to_metric_families

    samples: Samples = {}
    try:
        families = list(text_string_to_metric_families(path.read_text("utf-8")))
    except (OSError, ValueError):  # there is no such file, or it is not ours
        return samples
    for sample in (sample for family in families for sample in family.samples):
        labels: Mapping[str, str] = sample.labels
        if sample.name in _STATE and labels.get("store") == store:
            own = {name: value for name, value in labels.items() if name != "store"}
            samples.setdefault(sample.name, []).append((own, sample.value))
    return samples
