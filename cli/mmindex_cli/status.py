"""``status``: show the content and the quality of a store, and its last runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from mmindex.core.display import visible
from mmindex.core.errors import DataError, NoInputError
from mmindex.runs.report import RunReport, last_success, newest_first
from mmindex.runs.status import run_record, status_record
from mmindex.store import versions
from mmindex.store.intent import remembered
from mmindex_cli.common import store_path
from mmindex_cli.flags import as_flags
from mmindex_cli.options import StoreOption, TextFormat
from mmindex_cli.output import Form, emit, labelled
from mmindex_cli.summary import describe, duration

# Clocks of machines that share a disk can differ by this time; a later success does not count.
_CLOCK_SKEW = timedelta(minutes=5)

MaxAgeOption = Annotated[
    float | None,
    typer.Option(
        "--max-age",
        metavar="HOURS",
        min=0,
        help="Exit with 65 if no run succeeded within HOURS. Runs that changed nothing count.",
    ),
]


def status(
    store: StoreOption = None,
    max_age: MaxAgeOption = None,
    output_format: TextFormat = "text",
) -> None:
    """Show the content and the recall of the store, and the result of the last run.

    Example: mmindex status --max-age 26
    """
    root = store_path(store)
    layout = versions.open_layout(root)
    manifest = versions.read_current(layout)
    last, success = next(newest_first(layout), None), last_success(layout)
    if manifest is None:
        _show_unpublished(root, last, output_format)
        raise NoInputError(f"{root}: nothing is published yet", "run `mmindex build`")
    emit(
        [manifest],
        output_format,
        text=lambda _: (
            f"{visible(str(root))}: version {manifest.version}, created {manifest.created_at}",
            *labelled([*describe(manifest), *_run_lines(last, success)]),
        ),
        json=lambda one: status_record(root, one, last, success),
    )
    if max_age is not None:
        _check_age(success, timedelta(hours=max_age))


def _show_unpublished(root: Path, last: RunReport | None, form: Form) -> None:
    """Show a store without a successful run."""
    asked = remembered(versions.open_layout(root)) or {}
    sources = [source["spec"] for source in asked.get("source", ())]
    emit(
        [last],
        form,
        text=lambda _: (
            f"{visible(str(root))}: nothing published yet",
            *labelled([*(("source", visible(spec)) for spec in sources), *_run_lines(last, None)]),
        ),
        json=lambda one: {
            "store": str(root),
            "version": 0,
            "sources": sources,
            "last_run": run_record(one),
            "last_success": None,
        },
    )


def _run_lines(last: RunReport | None, success: RunReport | None) -> list[tuple[str, str]]:
    if last is None:
        return []
    lines = [("last run", _ending(last))]
    if last.error is not None:
        lines.append(("", as_flags(last.error.message)))
    if success is None:
        lines.append(("last good", "no successful run recorded"))
    elif success.run_id != last.run_id:
        lines.append(("last good", _ending(success)))
    return lines


def _ending(report: RunReport) -> str:
    when = f"{_ago(report.ended)} ({report.ended:%Y-%m-%d %H:%M} UTC)"
    if report.succeeded:
        what = "published a version" if report.outcome == "published" else "nothing changed"
    else:
        what = f"failed with exit code {report.exit_code}"
    return f"{what}, {when}"


def _ago(moment: datetime) -> str:
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if seconds < 0:
        return "in the future"
    return f"{seconds / 86_400:.0f} days ago" if seconds > 172_800 else f"{duration(seconds)} ago"


def _check_age(success: RunReport | None, allowed: timedelta) -> None:
    """Check that the last successful run is recent enough.

    Raises:
        DataError: it is too old, or there is none.
    """
    hint = "see `mmindex status` and the log of the scheduled job"
    if success is None:
        raise DataError("no successful run recorded", hint)
    age = datetime.now(UTC) - success.ended
    if age < -_CLOCK_SKEW:
        raise DataError(
            f"the last successful run ended in the future: {success.ended_at}",
            "check the clock of this machine",
        )
    if age > allowed:
        raise DataError(
            f"the last successful run ended {_ago(success.ended)} ({success.ended_at}); "
            f"the limit is {allowed.total_seconds() / 3600:g} hours",
            hint,
        )
