"""``versions``, ``gc`` and ``rollback``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmindex.core.display import visible
from mmindex.core.errors import BusyError
from mmindex_cli.common import StoreOption, run_id, store_path
from mmindex_cli.options import FormatOption

if TYPE_CHECKING:
    from mmindex.store.layout import Layout
    from mmindex.upkeep.gc import CollectReport

# The defaults of upkeep.gc.Retention, which is imported by the commands that need it.
KeepOption = Annotated[
    int, typer.Option("--keep", min=1, help="Keep this many of the newest versions.")
]
KeepDaysOption = Annotated[
    float, typer.Option(min=0, help="Keep versions younger than this, whatever their number.")
]


def versions(store: StoreOption = None, output_format: FormatOption = "text") -> None:
    """List the versions that the store keeps, oldest first; * marks the published one.

    With the size of what each lists, and with what would keep it from `mmindex gc`.

    Example: mmindex versions
    """
    from mmindex.core.display import inert_json
    from mmindex.store import versions as stored

    layout = stored.open_layout(store_path(store))
    for row in _version_rows(layout):
        if output_format == "json":
            typer.echo(inert_json(row))
            continue
        if "damaged" in row:
            typer.echo(f"  {row['version']:>4}  {visible(str(row['damaged']))}")
            continue
        restored = f", restored from {row['restored_from']}" if row["restored_from"] else ""
        typer.echo(
            f"{'*' if row['current'] else ' '} {row['version']:>4}  {row['created_at']}  "
            f"{row['images']:>10,} images  {row['captions']:>10,} captions  "
            f"{row['bytes']:>15,} bytes  {visible(str(row['model'] or 'not encoded'))}{restored}"
            f"  ({'; '.join(row['kept_as']) or 'goes with the next gc'})"
        )


def _version_rows(layout: Layout) -> list[dict[str, Any]]:
    from datetime import UTC, datetime

    from mmindex.store import versions as stored
    from mmindex.store.leftovers import read_versions
    from mmindex.upkeep.gc import Retention, plan

    current = stored.read_current(layout)
    found = read_versions(layout)
    created = {n: "" if isinstance(made, str) else made.created_at for n, made in found.items()}
    reasons = plan(created, current, Retention(), datetime.now(UTC))
    rows: list[dict[str, Any]] = []
    for number, made in found.items():
        published = current is not None and number == current.version
        if isinstance(made, str):
            rows.append({"version": number, "current": published, "damaged": made})
            continue
        rows.append(
            {
                "version": number,
                "current": published,
                "created_at": made.created_at,
                "images": made.counts.indexed,
                "captions": made.counts.captions,
                "model": made.encoder.model if made.encoder else None,
                "stages": made.stages,
                "restored_from": made.restored_from,
                "bytes": made.size_bytes,
                "kept_as": reasons[number],
            }
        )
    return rows


def gc(
    keep: KeepOption = 3,
    keep_days: KeepDaysOption = 7.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go; change nothing.")
    ] = False,
    store: StoreOption = None,
    output_format: FormatOption = "text",
) -> None:
    """Remove old versions, and what no version needs; works on a full disk.

    A version stays if it is the published one, among the newest, young, or being read. Exit code
    75 where a version that holds forgotten items is still being read.

    Example: mmindex gc --keep 3 --keep-days 7
    """
    import msgspec

    from mmindex.core.display import inert_json
    from mmindex.upkeep.gc import Retention
    from mmindex.upkeep.gc import gc as collect

    root = store_path(store)
    report = collect(root, Retention(keep, keep_days), dry_run=dry_run)
    if output_format == "json":
        typer.echo(inert_json(msgspec.to_builtins(report)))
    else:
        _print_collected(report)
    if report.blocked:
        numbers = ", ".join(map(str, report.blocked))
        raise BusyError(
            f"{root}: forgotten items remain in version {numbers}, which is being read",
            "run `mmindex gc` again when the reader has ended; the next build removes them too",
        )


def _print_collected(report: CollectReport) -> None:
    would = "would remove" if report.dry_run else "removed"
    for kept in report.kept:
        typer.echo(f"kept version {kept.version}: {'; '.join(kept.reasons)}")
    for number in report.removed:
        typer.echo(f"{would} version {number}")
    if report.spared:
        typer.echo(
            f"kept {report.spared} embedding shard(s) of no version, {report.spared_bytes:,} bytes,"
            " for a later build to take up; --keep-days 0 takes them too"
        )
    typer.echo(
        f"{would} {len(report.removed)} version(s), {report.objects} object(s), "
        f"{report.reports} run report(s): {report.bytes_freed:,} bytes"
    )


def rollback(
    number: Annotated[
        int | None,
        typer.Argument(
            metavar="[N]",
            min=1,
            help="The version to go back to. [default: the newest before the published one]",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Go back to an old version: its content is published again under the next number.

    Every object of it is read and hashed first. The next build goes on from there.

    Example: mmindex rollback 12
    """
    from mmindex.upkeep.rollback import rollback as roll_back
    from mmindex_cli.summary import print_summary

    root = store_path(store)
    id_of_run = run_id()
    manifest = roll_back(root, number, id_of_run)
    published = manifest.run_id == id_of_run
    print_summary(root, manifest, published=published)
    if published:
        typer.echo(f"  {'restored':<12}version {manifest.restored_from}")
