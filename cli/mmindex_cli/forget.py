"""``forget``: remove images permanently."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex.core.display import visible
from mmindex_cli.common import run_id, store_path
from mmindex_cli.options import DryRunOption, StoreOption, TextFormat

if TYPE_CHECKING:
    from mmindex.upkeep.forget import ForgetReport
    from mmindex_cli.output import Form

NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="IMAGE", help="Ids, uris, file paths or folders of images."),
]
SelectOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="SQL",
        help="Remove all images of the published version that match an SQL condition on their "
        "columns, in addition to the images that you name: \"split = 'val'\".",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]

_SHOWN = 20


def forget(
    names: NamesArgument = None,
    where: SelectOption = None,
    store: StoreOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    output_format: TextFormat = "text",
) -> None:
    """Remove images permanently, with their captions and vectors, and all older versions.

    Byte-identical copies are removed too, and later builds do not index them again. You cannot
    undo this. Your source files are not changed. In a terminal, the command shows what it would
    remove and asks for confirmation. If an image is unknown, the exit code is 66 and nothing is
    removed.

    Example: mmindex forget ~/photos/anna.jpg --dry-run
    """
    from mmindex.upkeep.forget import forget as forget_images
    from mmindex.upkeep.forget import require_removed
    from mmindex.upkeep.forget_names import find_ids, near_copies

    root = store_path(store)
    ids = find_ids(root, names or (), where)
    ask = not (yes or dry_run) and on_terminal()
    near: Sequence[str] = ()
    if dry_run or ask:
        planned = forget_images(root, ids, run_id(), dry_run=True)
        near = near_copies(root, planned)
    if ask and planned.images:
        _confirm(planned, near)
    report = planned if dry_run else forget_images(root, ids, run_id())
    _print(report, near if dry_run else (), output_format)
    require_removed(report)


def on_terminal() -> bool:
    """Return whether stdin and stderr are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _confirm(planned: ForgetReport, near: Sequence[str]) -> None:
    """Show what would be removed and ask for confirmation; end the command unless it is yes."""
    for line in _lines(planned, near):
        typer.echo(line, err=True)
    typer.confirm("Remove these images permanently? You cannot undo this.", abort=True, err=True)


def _print(report: ForgetReport, near: Sequence[str], form: Form) -> None:
    from mmindex_cli.output import emit

    emit(
        [report],
        form,
        text=lambda _: _lines(report, near),
        json=lambda one: {**dataclasses.asdict(one), "near_copies": near},
    )


def _lines(report: ForgetReport, near: Sequence[str]) -> Iterator[str]:
    for name in report.already:
        yield f"{visible(name)} was already forgotten"
    if report.forgotten:
        done = "would forget" if report.dry_run else "forgot"
        yield f"{done} {report.images:,} image(s) and {report.captions:,} caption(s)"
    if report.dry_run:
        yield from _listed("", report.forgotten)
    yield from _listed("byte-identical copy, also forgotten: ", report.same_bytes)
    yield from _listed("looks almost the same, but stays: ", near)
    if report.published:
        yield f"published version {report.version}"
    for number in report.removed:
        yield f"removed version {number}"
    for path in report.still_in:
        yield f"still in the archive {visible(path)}, which is not changed"


def _listed(prefix: str, names: Sequence[str]) -> Iterator[str]:
    for name in names[:_SHOWN]:
        yield f"  {prefix}{visible(name)}"
    if len(names) > _SHOWN:
        yield f"  {prefix}and {len(names) - _SHOWN:,} more"
