"""``forget``: images that must go for good."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex_cli.common import StoreOption, run_id, store_path
from mmindex_cli.options import FormatOption

if TYPE_CHECKING:
    from mmindex.upkeep.forget import ForgetReport

_SHOWN = 20


def forget(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of images.")],
    store: StoreOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be forgotten.")
    ] = False,
    output_format: FormatOption = "text",
) -> None:
    """Remove images for good, with their captions, vectors and every older version of the store.

    Other names of the same bytes go with them, and no later build brings any of it back. There is
    no undo. The files of your sources are not touched.

    Exit code 66 when an id is unknown; then nothing is forgotten.

    Example: mmindex forget folder/photos/anna.jpg --dry-run
    """
    from mmindex.core.display import inert_json
    from mmindex.upkeep.forget import forget as forget_images
    from mmindex.upkeep.forget import require_removed

    report = forget_images(store_path(store), ids, run_id(), dry_run=dry_run)
    if output_format == "json":
        typer.echo(inert_json(dataclasses.asdict(report)))
    else:
        for line in _lines(report):
            typer.echo(line)
    require_removed(report)


def _lines(report: ForgetReport) -> Iterator[str]:
    from mmindex.core.display import visible

    for name in report.already:
        yield f"{visible(name)} is forgotten already"
    if report.forgotten:
        done = "would forget" if report.dry_run else "forgot"
        yield f"{done} {report.images:,} image(s) and {report.captions:,} caption(s)"
    for name in report.same_bytes[:_SHOWN]:
        yield f"  the same bytes, so gone as well: {visible(name)}"
    if len(report.same_bytes) > _SHOWN:
        yield f"  and {len(report.same_bytes) - _SHOWN:,} more with the same bytes"
    if report.published:
        yield f"published version {report.version}"
    for number in report.removed:
        yield f"removed version {number}"
    for path in report.still_in:
        yield f"still in the archive {visible(path)}, which is kept whole"
