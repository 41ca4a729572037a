"""A run: lock, stages, skip what is unchanged, publish once or not at all, one summary.

The next version is drafted as a :class:`Manifest` that each stage replaces. Only when the draft
differs from the published version in content is it published, as CURRENT + 1.
"""

from __future__ import annotations

import platform
import resource
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

import mmindex
from mmindex import stages
from mmindex.config import DEFAULT_SCENES, Config, SourceConfig, load_config
from mmindex.context import Context
from mmindex.errors import MmindexError
from mmindex.progress import StageTimer, get_logger
from mmindex.store import publish, versions
from mmindex.store.layout import FORMAT, Layout
from mmindex.store.lock import writer_lock
from mmindex.store.manifest import Counts, Manifest
from mmindex.store.objects import Objects

STAGES = ("crawl", "encode", "index", "evaluate")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did.

    Attributes:
        manifest: the version that the store shows now.
        published: whether this run made it; False: nothing had changed.
        seconds: wall time of each stage.
        reports: each stage's own numbers, by stage name.
    """

    manifest: Manifest
    published: bool
    seconds: dict[str, float]
    reports: dict[str, object] = field(default_factory=dict)


def settings(root: Path, path: Path | None, values: dict[str, Any]) -> Config:
    """The settings of a run.

    A configuration file or sources on the command line start afresh; without either, the run goes
    on with what the store was built with. Command-line values win over both.

    Args:
        root: the store's folder; it need not exist.
        path: the configuration file, or None.
        values: command-line values by dotted name; None means "not given".
    """
    base = None
    if path is None and values.get("source") is None and Layout(root).current_file.exists():
        manifest = versions.read_current(versions.open_layout(root))
        base = manifest.config if manifest else None
    config = load_config(path, values, base)
    if config.source:
        return config
    return config.model_copy(update={"source": (SourceConfig(spec=DEFAULT_SCENES),)})


def run(root: Path, config: Config, run_id: str, wanted: Sequence[str] = STAGES) -> RunSummary:
    """Run stages over the store at ``root`` and publish the result.

    Args:
        root: the store's folder, made when it does not exist.
        config: settings, see :func:`settings`.
        run_id: name of this run in logs and reports.
        wanted: stages to run, in order, out of :data:`STAGES`.

    Raises:
        BusyError: another run holds the store.
        DataError: too much was quarantined or removed, or the input is damaged.
        MmindexError: anything else that ends a run; the published version stays as it was.
    """
    layout = versions.create_layout(root)
    log = get_logger("run")
    with writer_lock(layout):
        versions.remove_leftovers(layout)
        parent = versions.read_current(layout)
        context = Context(
            layout=layout, objects=Objects(layout), config=config, run_id=run_id, parent=parent
        )
        timer = StageTimer()
        draft = _first_draft(parent, config, run_id)
        try:
            stages.prepare(context, draft, wanted)
            draft = _run_stages(context, draft, timer, wanted)
            if parent is not None and draft.content() == parent.content():
                final, outcome = parent, "unchanged"
            else:
                versions.publish_version(context.objects, draft)
                final, outcome = draft, "published"
        except BaseException as error:  # signals too: whatever ends a run is reported
            _report_failure(context, draft, timer, error)
            raise
        _write_report(context, final, timer, outcome)
    published = outcome == "published"
    log.info(
        f"version {final.version} published" if published else "nothing changed",
        images=final.counts.indexed,
        captions=final.counts.captions,
        quarantined=final.counts.quarantined,
        seconds=round(sum(timer.seconds.values()), 2),
    )
    return RunSummary(final, published, timer.seconds, dict(context.reports))


def _first_draft(parent: Manifest | None, config: Config, run_id: str) -> Manifest:
    """The next version before any stage ran: the parent's content under the next number."""
    stamp: dict[str, Any] = {
        "config": config.recorded(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_id": run_id,
        "mmindex": mmindex.__version__,
    }
    if parent is not None:
        return msgspec.structs.replace(
            parent, version=parent.version + 1, parent=parent.version, **stamp
        )
    return Manifest(
        format=FORMAT,
        version=1,
        parent=None,
        stages=(),
        corpus_fingerprint="",
        sources=(),
        counts=Counts(
            seen=0, indexed=0, quarantined=0, ignored=0, captions=0, unique_images=0, unique_texts=0
        ),
        encoder=None,
        indexes={},
        evaluation=None,
        evaluation_inputs="",
        objects=(),
        **stamp,
    )


def _run_stages(
    context: Context, draft: Manifest, timer: StageTimer, wanted: Sequence[str]
) -> Manifest:
    for name in wanted:
        with timer.measure(name):
            draft = stages.BY_NAME[name](context, draft)
    return draft


class _RunReport(msgspec.Struct, frozen=True):
    """``runs/<run_id>.json``: what a monitoring script reads."""

    run_id: str
    ended_at: str
    outcome: str
    version: int
    counts: Counts
    seconds: dict[str, float]
    peak_rss_bytes: int
    reports: dict[str, object]
    mmindex: str
    python: str


def _report_failure(
    context: Context, draft: Manifest, timer: StageTimer, error: BaseException
) -> None:
    """Report a failed run; where even that fails, the first error is the one to see."""
    try:
        _write_report(context, draft, timer, f"failed: {error or type(error).__name__}")
    except MmindexError as second:
        get_logger("run").warning("the run's report could not be written", why=second.message)


def _write_report(context: Context, shown: Manifest, timer: StageTimer, outcome: str) -> None:
    report = _RunReport(
        run_id=context.run_id,
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        outcome=outcome,
        version=shown.version,
        counts=shown.counts,
        seconds={name: round(value, 3) for name, value in timer.seconds.items()},
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        reports=dict(context.reports),
        mmindex=mmindex.__version__,
        python=platform.python_version(),
    )
    layout: Layout = context.layout
    publish.write_file(
        layout, layout.run(context.run_id), msgspec.json.format(msgspec.json.encode(report)) + b"\n"
    )
