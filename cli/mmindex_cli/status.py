"""``status``: what the store holds, how good it is, and how its last runs ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer

from mmindex.core.display import inert_json, visible
from mmindex.core.errors import DataError, NoInputError
from mmindex.runs.report import RunReport, last_success, newest_first
from mmindex.store import versions
from mmindex_cli.common import StoreOption, store_path
from mmindex_cli.flags import as_flags
from mmindex_cli.options import FormatOption
from mmindex_cli.summary import describe, duration

# Clocks of machines that share a disk differ a little; a success from further ahead is no success.
_CLOCK_SKEW = timedelta(minutes=5)

MaxAgeOption = Annotated[
    float | None,
    typer.Option(
        "--max-age",
        metavar="HOURS",
        min=0,
        help="Exit with 65 unless a run ended well within so many hours, changed anything or not.",
    ),
]


def status(
    store: StoreOption = None,
    max_age: MaxAgeOption = None,
    output_format: FormatOption = "text",
) -> None:
    """Show what the store holds, how good its answers are, and how the last run ended.

    Example: mmindex status --max-age 26
    """
    root = store_path(store)
    layout = versions.open_layout(root)
    manifest = versions.read_current(layout)
    if manifest is None:
        raise NoInputError(f"{root}: nothing is published yet", "run `mmindex build`")
    last, success = next(newest_first(layout), None), last_success(layout)
    if output_format == "json":
        shown = msgspec.structs.asdict(manifest)
        del shown["objects"]
        runs = {"last_run": _record(last), "last_success": _record(success)}
        extra = {"store": str(root), "bytes": manifest.size_bytes, **runs}
        typer.echo(inert_json(msgspec.to_builtins({**shown, **extra})))
    else:
        typer.echo(f"{visible(str(root))}: version {manifest.version}, made {manifest.created_at}")
        for label, text in (*describe(manifest), *_run_lines(last, success)):
            typer.echo(f"  {label:<12}{text}")
    if max_age is not None:
        _check_age(success, timedelta(hours=max_age))


def _record(report: RunReport | None) -> dict[str, Any] | None:
    if report is None:
        return None
    names = ("run_id", "outcome", "exit_code", "started_at", "ended_at", "version", "error")
    return {name: getattr(report, name) for name in names}


def _run_lines(last: RunReport | None, success: RunReport | None) -> list[tuple[str, str]]:
    if last is None:
        return []
    lines = [("last run", _ending(last))]
    if last.error is not None:
        lines.append(("", visible(as_flags(last.error.message))))
    if success is None:
        lines.append(("last good", "no run is known that ended well"))
    elif success.run_id != last.run_id:
        lines.append(("last good", _ending(success)))
    return lines


def _ending(report: RunReport) -> str:
    when = f"{_ago(report.ended)} ({report.ended:%Y-%m-%d %H:%M} UTC)"
    if report.succeeded:
        what = "published a version" if report.outcome == "published" else "nothing had changed"
    else:
        what = f"failed with exit code {report.exit_code}"
    return f"{what}, {when}"


def _ago(moment: datetime) -> str:
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if seconds < 0:
        return "in the future"
    return f"{seconds / 86_400:.0f} days ago" if seconds > 172_800 else f"{duration(seconds)} ago"


def _check_age(success: RunReport | None, allowed: timedelta) -> None:
    """Refuse a store that was not brought up to date for too long.

    Raises:
        DataError: it was not, or nobody can tell.
    """
    hint = "see `mmindex status` for how the last run ended, and the log of the scheduled job"
    if success is None:
        raise DataError("no run is known that ended well", hint)
    age = datetime.now(UTC) - success.ended
    if age < -_CLOCK_SKEW:
        raise DataError(
            f"the last run that ended well did so in the future: {success.ended_at}",
            "check this machine's clock",
        )
    if age > allowed:
        raise DataError(
            f"the last run that ended well did so {_ago(success.ended)} "
            f"({success.ended_at}), at most {allowed.total_seconds() / 3600:g} hours are allowed",
            hint,
        )
