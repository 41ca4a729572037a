"""``quarantine list`` and ``quarantine retry``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmindex.core.display import visible
from mmindex_cli.common import run_id, store_path
from mmindex_cli.options import MACHINE, NETWORK, StoreOption, TextFormat, takes_settings

if TYPE_CHECKING:
    from mmindex.upkeep.retry import RetryReport

_SHOWN = 20

ReasonOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Only entries with this reason, for example truncated. You can repeat this option."
    ),
]


def quarantine_list(
    store: StoreOption = None,
    reason: ReasonOption = None,
    output_format: TextFormat = "text",
) -> None:
    """List the items that the last run left out of the index, with the reasons.

    Example: mmindex quarantine list --reason truncated --format json
    """
    import msgspec

    from mmindex.core.errors import UsageError, did_you_mean
    from mmindex.core.records import Reason
    from mmindex.store.quarantine import read_ledger
    from mmindex.store.versions import open_layout
    from mmindex_cli.output import emit

    for name in reason or ():
        if name not in list(Reason):
            guess = did_you_mean(name, Reason)
            raise UsageError(f"unknown reason {name!r}{guess}", f"reasons: {', '.join(Reason)}")
    entries = read_ledger(open_layout(store_path(store)))
    emit(
        (entry for entry in entries if not reason or entry.reason in reason),
        output_format,
        text=lambda some: (
            f"{entry.reason:<20}{visible(entry.id)}  {visible(entry.detail)}" for entry in some
        ),
        json=msgspec.to_builtins,
    )


@takes_settings(*MACHINE, *NETWORK)
def quarantine_retry(
    values: dict[str, Any],
    store: StoreOption = None,
    output_format: TextFormat = "text",
) -> None:
    """Try the items in quarantine again with a build that ignores earlier failures.

    Images are decoded again and failed URLs are requested again, even those that a build would skip
    for 30 days. Items that fail again stay in quarantine.

    Example: mmindex quarantine retry
    """
    from mmindex.upkeep.retry import retry_quarantined
    from mmindex_cli.output import emit
    from mmindex_cli.summary import summary_lines

    root = store_path(store)
    report = retry_quarantined(root, run_id(), values)
    manifest, published = report.summary.manifest, report.summary.published
    record = {
        "tried": report.tried,
        "back": report.back,
        "quarantined": manifest.counts.quarantined,
        "version": manifest.version,
        "published": published,
    }
    lines = (*_lines(report), *summary_lines(root, manifest, published=published))
    emit([report], output_format, text=lambda _: lines, json=lambda _: record)


def _lines(report: RetryReport) -> Iterator[str]:
    yield f"{len(report.back):,} of {report.tried:,} items in quarantine are indexed again"
    for name in report.back[:_SHOWN]:
        yield f"  {visible(name)}"
    if len(report.back) > _SHOWN:
        yield f"  and {len(report.back) - _SHOWN:,} more"
