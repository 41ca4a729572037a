"""``versions``, ``gc`` and ``rollback``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmindex.core.display import visible
from mmindex.core.errors import BusyError
from mmindex_cli.common import run_id, store_path
from mmindex_cli.options import DryRunOption, StoreOption, TextFormat

if TYPE_CHECKING:
    from mmindex.upkeep.gc import CollectReport

# The defaults of upkeep.gc.Retention, which is imported by the commands that need it.
KeepOption = Annotated[
    int, typer.Option("--keep", min=1, help="Number of newest versions to keep.")
]
KeepDaysOption = Annotated[
    float, typer.Option(min=0, help="Keep all versions younger than this many days.")
]
NumberArgument = Annotated[
    int | None,
    typer.Argument(
        metavar="N",
        min=1,
        help="The version to restore. [default: the newest before the published one]",
        show_default=False,
    ),
]


def versions(store: StoreOption = None, output_format: TextFormat = "text") -> None:
    """List the versions in the store, oldest first; * marks the published one.

    It shows the size of each version and why `mmindex gc` keeps it.

    Example: mmindex versions
    """
    from mmindex.store.versions import open_layout
    from mmindex.upkeep.listing import version_records
    from mmindex_cli.output import emit

    rows = version_records(open_layout(store_path(store)))
    emit(rows, output_format, text=_version_lines, json=lambda row: row)


def _version_lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        if "damaged" in row:
            yield f"  {row['version']:>4}  {visible(str(row['damaged']))}"
            continue
        restored = f", restored from {row['restored_from']}" if row["restored_from"] else ""
        yield (
            f"{'*' if row['current'] else ' '} {row['version']:>4}  {row['created_at']}  "
            f"{row['images']:>10,} images  {row['captions']:>10,} captions  "
            f"{row['bytes']:>15,} bytes  {visible(str(row['model'] or 'not encoded'))}{restored}"
            f"  ({'; '.join(row['kept_as']) or 'removed by the next gc'})"
        )


def gc(
    keep: KeepOption = 3,
    keep_days: KeepDaysOption = 7.0,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    output_format: TextFormat = "text",
) -> None:
    """Remove old versions and unused files. Works on a full disk.

    It keeps the published version, the newest and recent versions, and those that are being read.
    If a version with forgotten items is still being read, the exit code is 75.

    Example: mmindex gc --keep 3 --keep-days 7
    """
    import msgspec

    from mmindex.upkeep.gc import Retention
    from mmindex.upkeep.gc import gc as collect
    from mmindex_cli.output import emit

    root = store_path(store)
    report = collect(root, Retention(keep, keep_days), dry_run=dry_run)
    emit([report], output_format, text=lambda _: _collected(report), json=msgspec.to_builtins)
    if report.blocked:
        numbers = ", ".join(map(str, report.blocked))
        raise BusyError(
            f"{root}: forgotten items remain in version {numbers}, which is being read",
            "run `mmindex gc` or a build after the reader has finished: both remove these versions",
        )


def _collected(report: CollectReport) -> Iterator[str]:
    would = "would remove" if report.dry_run else "removed"
    for kept in report.kept:
        yield f"kept version {kept.version}: {'; '.join(kept.reasons)}"
    for number in report.removed:
        yield f"{would} version {number}"
    if report.spared:
        yield (
            f"kept {report.spared} embedding shard(s) of no version ({report.spared_bytes:,} bytes)"
            " for a later build; --keep-days 0 removes them"
        )
    yield (
        f"{would} {len(report.removed)} version(s), {report.objects} object(s), "
        f"{report.reports} run report(s): {report.bytes_freed:,} bytes"
    )


def rollback(number: NumberArgument = None, store: StoreOption = None) -> None:
    """Restore an old version: publish its content again with the next version number.

    Every object is read and hashed first. The next build continues from this version.

    Example: mmindex rollback 12
    """
    from mmindex.upkeep.rollback import rollback as roll_back
    from mmindex_cli.output import emit, labelled
    from mmindex_cli.summary import summary_lines

    root = store_path(store)
    id_of_run = run_id()
    manifest = roll_back(root, number, id_of_run)
    published = manifest.run_id == id_of_run
    lines = [*summary_lines(root, manifest, published=published)]
    if published:
        lines += labelled([("restored", f"version {manifest.restored_from}")])
    emit([manifest], "text", text=lambda _: lines, json=lambda one: one)
