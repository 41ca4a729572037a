"""``check``: verify a store, and repair it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex.core.display import visible
from mmindex.core.errors import DataError, UsageError
from mmindex_cli.common import store_path
from mmindex_cli.options import StoreOption, TextFormat

if TYPE_CHECKING:
    from mmindex.upkeep.check import CheckReport
    from mmindex.upkeep.repair import RepairReport

FullOption = Annotated[
    bool,
    typer.Option(
        "--full", help="Read and hash every object, and check that the objects are consistent."
    ),
]
SubsetOption = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Read and hash one Nth of the objects: 1/7 today, 2/7 tomorrow and so on.",
    ),
]
RepairOption = Annotated[
    bool,
    typer.Option(
        "--repair",
        help="Set a damaged CURRENT to the newest intact version, remove damaged old versions, "
        "and run a full check.",
    ),
]


def check(
    store: StoreOption = None,
    full: FullOption = False,
    subset: SubsetOption = None,
    repair: RepairOption = False,
    output_format: TextFormat = "text",
) -> None:
    """Check that the store is intact and that searches return the same answers as after the build.

    If there are problems, the exit code is 65 and there is one line for each problem.

    Example: mmindex check --full
    """
    from mmindex.upkeep.check import check as check_store
    from mmindex.upkeep.repair import repair as repair_store
    from mmindex_cli.output import emit

    root, part = store_path(store), _part(subset)
    if part is not None and (full or repair):
        raise UsageError(
            "--subset cannot be combined with --full or --repair", "use only one of them"
        )
    repaired = repair_store(root) if repair else None
    report = check_store(root, full=full or repair, subset=part)
    emit(
        [report],
        output_format,
        text=lambda _: _lines(report, repaired),
        json=lambda one: _record(one, repaired),
    )
    if report.problems:
        raise DataError(
            f"{len(report.problems)} problem(s) in {root}",
            "run `mmindex build` to rebuild damaged objects of the published version, and "
            "`mmindex check --repair` for the rest",
        )


def _part(subset: str | None) -> tuple[int, int] | None:
    if subset is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", subset)
    if found is None:
        raise UsageError(f"--subset {subset}: not of the form I/N", "for example --subset 1/7")
    return int(found[1]), int(found[2])


def _record(report: CheckReport, repaired: RepairReport | None) -> dict[str, object]:
    import msgspec

    record = {"sound": not report.problems, **msgspec.to_builtins(report)}
    return record if repaired is None else {**record, "repair": msgspec.to_builtins(repaired)}


def _lines(report: CheckReport, repaired: RepairReport | None) -> Iterator[str]:
    if repaired is not None:
        moved = "now points to" if repaired.moved else "still points to"
        yield f"CURRENT {moved} version {repaired.version}"
        for drop in repaired.dropped:
            verb = "could not remove (a reader holds it)" if drop.held else "removed"
            yield f"{verb} version {drop.version}: {visible(drop.why)}"
    yield from map(visible, report.problems)
    for number in report.pending:
        yield f"version {number} contains forgotten items; `mmindex gc` removes it"
    if not report.problems:
        yield (
            f"intact: {report.versions} version(s), {report.objects} objects present, "
            f"{report.hashed} of them read and hashed, {report.bytes:,} bytes"
        )
    if report.unlisted:
        yield (
            f"{report.unlisted} object(s) belong to no version ({report.unlisted_bytes:,} bytes); "
            "`mmindex gc` removes those that no later build can use"
        )
