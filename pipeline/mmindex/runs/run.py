"""A run: lock, stages, reuse of unchanged results, at most one new version, one summary.

The next version is drafted as a :class:`Manifest` that each stage replaces. The draft is published
as CURRENT + 1 only if its content differs from the published version's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

import mmindex
from mmindex.core.config import Config
from mmindex.core.errors import MmindexError
from mmindex.core.progress import StageTimer, get_logger
from mmindex.core.system import trim_heap
from mmindex.media.services import use_endpoint
from mmindex.runs import stages
from mmindex.runs.context import Context
from mmindex.runs.figures import Figures
from mmindex.runs.preflight import check_room
from mmindex.runs.report import Recorder, RunReport
from mmindex.store import versions
from mmindex.store.intent import Intent, clear_intent, write_intent
from mmindex.store.layout import FORMAT, Layout
from mmindex.store.leftovers import remove_leftovers
from mmindex.store.lock import writer_lock
from mmindex.store.manifest import Counts, Manifest
from mmindex.store.objects import Objects

STAGES = ("crawl", "encode", "index", "evaluate")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The result of a run.

    Attributes:
        manifest: the version that is published now.
        published: whether this run created it; False if nothing changed.
        report: its report, as in ``runs/<run_id>.json``.
    """

    manifest: Manifest
    published: bool
    report: RunReport


def run(
    root: Path,
    config: Config,
    run_id: str,
    wanted: Sequence[str] = STAGES,
    *,
    retry: bool = False,
) -> RunSummary:
    """Run stages over the store at ``root`` and publish the result.

    Args:
        root: the store's folder, created if it does not exist.
        config: settings, see :func:`mmindex.runs.settings.settings`.
        run_id: name of this run in logs and reports.
        wanted: stages to run, in order, out of :data:`STAGES`.
        retry: retry items that earlier runs could not encode.

    Raises:
        BusyError: another run holds the store.
        DataError: too much was quarantined or removed, or the input is damaged.
        MmindexError: another error ended the run; the published version is unchanged.
    """
    use_endpoint(config.fetch.s3_endpoint, [source.spec for source in config.source])
    layout = Layout(root.absolute())
    if not layout.format_file.exists():  # invalid settings create no store
        stages.check_settings(Context(layout, Objects(layout), config, run_id, None), wanted)
    layout = versions.create_layout(root)
    with writer_lock(layout):
        recorder = Recorder(layout, run_id, wanted, StageTimer(), Figures())
        parent = None
        try:
            remove_leftovers(layout)
            parent = versions.read_current(layout)
            context = Context(
                layout=layout,
                objects=Objects(layout),
                config=config,
                run_id=run_id,
                parent=parent,
                retry=retry,
                figures=recorder.figures,
            )
            with closing(context):
                final = _build(context, recorder)
            clear_intent(layout)  # the version has the settings now
        except BaseException as error:  # signals too, because every end of a run is reported
            _report_failure(recorder, parent, error)
            raise
        published = final is not parent
        report = recorder.write("published" if published else "unchanged", final)
    get_logger("run").info(
        f"version {final.version} published" if published else "nothing changed",
        images=final.counts.indexed,
        captions=final.counts.captions,
        quarantined=final.counts.quarantined,
        seconds=round(sum(recorder.timer.seconds.values()), 2),
    )
    return RunSummary(final, published, report)


def _build(context: Context, recorder: Recorder) -> Manifest:
    """Run the stages; return the published version, or the parent if nothing changed."""
    draft = first_draft(context.parent, context.config, context.run_id)
    stages.check_settings(context, recorder.wanted)
    if draft.config != (context.parent.config if context.parent is not None else None):
        write_intent(context.layout, Intent(context.run_id, draft.config))
    check_room(context.layout, context.config, context.parent, recorder.wanted)
    stages.prepare(context, draft, recorder.wanted)
    for name in recorder.wanted:
        with recorder.stage(name, context.objects):
            draft = stages.BY_NAME[name](context, draft)
        trim_heap()  # so that memory of this stage does not count towards the peak of the next
    if context.parent is not None and draft.content() == context.parent.content():
        return context.parent
    return versions.publish_version(context.objects, draft)


def first_draft(parent: Manifest | None, config: Config, run_id: str) -> Manifest:
    """Return the next version before any stage: the parent's content under the next number."""
    stamp: dict[str, Any] = {
        "config": config.recorded(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_id": run_id,
        "mmindex": mmindex.__version__,
    }
    if parent is not None:
        return msgspec.structs.replace(
            parent,
            version=parent.version + 1,
            parent=parent.version,
            restored_from=None,
            **stamp,
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


def _report_failure(recorder: Recorder, shown: Manifest | None, error: BaseException) -> None:
    """Report a failed run; if reporting fails too, the first error is the one raised."""
    try:
        recorder.write("failed", shown, error)
    except MmindexError as second:
        get_logger("run").warning("the report of the run could not be written", why=second.message)
