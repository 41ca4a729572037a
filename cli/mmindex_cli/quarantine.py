"""``quarantine list`` and ``quarantine retry``."""

from __future__ import annotations

from typing import Annotated

import typer

from mmindex_cli.build_options import DeviceOption, WorkersOption
from mmindex_cli.common import StoreOption, run_id, store_path
from mmindex_cli.fetch_options import PrivateOption, ProxyOption
from mmindex_cli.options import FormatOption

_SHOWN = 20


def quarantine_list(
    store: StoreOption = None,
    reason: Annotated[
        list[str] | None,
        typer.Option(help="Only entries with this reason, such as truncated. May be repeated."),
    ] = None,
    output_format: FormatOption = "text",
) -> None:
    """List what the newest run kept out of the index, and why.

    Example: mmindex quarantine list --reason truncated --format json
    """
    import msgspec

    from mmindex.core.display import inert_json, visible
    from mmindex.core.errors import UsageError
    from mmindex.core.records import Reason
    from mmindex.store.quarantine import read_ledger
    from mmindex.store.versions import open_layout

    for name in reason or ():
        if name not in list(Reason):
            raise UsageError(f"{name!r} is no reason", f"reasons: {', '.join(Reason)}")
    for entry in read_ledger(open_layout(store_path(store))):
        if reason and entry.reason not in reason:
            continue
        if output_format == "json":
            typer.echo(inert_json(msgspec.to_builtins(entry)))
        else:
            typer.echo(f"{entry.reason:<20}{visible(entry.id)}  {visible(entry.detail)}")


def quarantine_retry(
    store: StoreOption = None,
    device: DeviceOption = None,
    workers: WorkersOption = None,
    allow_private: PrivateOption = False,
    use_env_proxy: ProxyOption = False,
    output_format: FormatOption = "text",
) -> None:
    """Try again what is in quarantine, by a build that believes no failure of earlier runs.

    Pictures are decoded again and addresses that failed are asked again, also those that a build
    would leave alone for 30 days. What fails again stays in quarantine.

    Example: mmindex quarantine retry
    """
    from mmindex.core.display import inert_json, visible
    from mmindex.upkeep.retry import retry_quarantined
    from mmindex_cli.summary import print_summary

    root = store_path(store)
    values = {
        "encode.device": device,
        "encode.workers": workers,
        "fetch.allow_private": allow_private or None,
        "fetch.use_env_proxy": use_env_proxy or None,
    }
    report = retry_quarantined(root, run_id(), values)
    manifest = report.summary.manifest
    if output_format == "json":
        record = {
            "tried": report.tried,
            "back": report.back,
            "quarantined": manifest.counts.quarantined,
            "version": manifest.version,
            "published": report.summary.published,
        }
        typer.echo(inert_json(record))
        return
    typer.echo(f"{len(report.back):,} of {report.tried:,} in quarantine came back")
    for name in report.back[:_SHOWN]:
        typer.echo(f"  {visible(name)}")
    if len(report.back) > _SHOWN:
        typer.echo(f"  and {len(report.back) - _SHOWN:,} more")
    print_summary(root, manifest, published=report.summary.published)
