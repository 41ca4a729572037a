"""``check``: is the store sound, and mending it where it is not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex.core.display import visible
from mmindex.core.errors import DataError, UsageError
from mmindex_cli.common import StoreOption, store_path
from mmindex_cli.options import FormatOption

if TYPE_CHECKING:
    from mmindex.upkeep.check import CheckReport
    from mmindex.upkeep.repair import RepairReport


def check(
    store: StoreOption = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Read and hash every object, and see that all fit together."),
    ] = False,
    subset: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Read and hash one N-th of the objects: 1/7 tonight, 2/7 tomorrow ...",
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Point CURRENT at the newest sound version where it is damaged, drop damaged old "
            "versions, then check in full.",
        ),
    ] = False,
    output_format: FormatOption = "text",
) -> None:
    """Check that the store is sound: manifests, objects, and that search still answers as built.

    Exit code 65 and one line for each problem when it is not.

    Example: mmindex check --full
    """
    from mmindex.upkeep.check import check as check_store
    from mmindex.upkeep.repair import repair as repair_store

    root = store_path(store)
    part = _part(subset)
    if part is not None and (full or repair):
        raise UsageError("--subset is no part of a full check", "leave out --full and --repair")
    mended = repair_store(root) if repair else None
    report = check_store(root, full=full or repair, subset=part)
    _print_check(report, mended, output_format)
    if report.problems:
        raise DataError(
            f"{len(report.problems)} problem(s) in {root}",
            "run `mmindex build`: it makes damaged objects of the published version again; "
            "`mmindex check --repair` mends the rest",
        )


def _part(subset: str | None) -> tuple[int, int] | None:
    if subset is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", subset)
    if found is None:
        raise UsageError(f"--subset {subset}: not I/N", "--subset 1/7, 2/7 ... 7/7")
    return int(found[1]), int(found[2])


def _print_check(report: CheckReport, mended: RepairReport | None, output_format: str) -> None:
    import msgspec

    from mmindex.core.display import inert_json

    if output_format == "json":
        record = msgspec.to_builtins({"sound": not report.problems, **msgspec.to_builtins(report)})
        if mended is not None:
            record["repair"] = msgspec.to_builtins(mended)
        typer.echo(inert_json(record))
        return
    if mended is not None:
        moved = "now names" if mended.moved else "names, as before,"
        typer.echo(f"CURRENT {moved} version {mended.version}")
        for drop in mended.dropped:
            verb = "cannot drop, a reader holds it:" if drop.held else "dropped"
            typer.echo(f"{verb} version {drop.version}: {visible(drop.why)}")
    for problem in report.problems:
        typer.echo(visible(problem))
    for number in report.pending:
        typer.echo(f"version {number} holds forgotten items: `mmindex gc` removes it")
    if not report.problems:
        typer.echo(
            f"sound: {report.versions} version(s), {report.objects} objects present, "
            f"{report.hashed} of them read and hashed, {report.bytes:,} bytes"
        )
    if report.unlisted:
        typer.echo(
            f"{report.unlisted} object(s) of no version, {report.unlisted_bytes:,} bytes: "
            "`mmindex gc` takes what no later build can use"
        )
