"""``dedup``: find groups of near-duplicate images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex.core.display import score_text, visible
from mmindex_cli.common import store_path
from mmindex_cli.options import (
    NullOption,
    PageOption,
    PathsFormat,
    StoreOption,
    WhereOption,
    paths_form,
)

if TYPE_CHECKING:
    from mmindex.insight.dedup import Group
    from mmindex.search.filters import Rows
    from mmindex.store.snapshot import Snapshot
    from mmindex_cli.output import Cell

ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--image-threshold",
        help="Lowest cosine similarity of duplicates. "
        "[default: 0.98 for the embedded model, otherwise 0.96]",
    ),
]
AcrossOption = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Show only groups in which this column of the images has several values. For "
        "example, split finds images that are in more than one split.",
    ),
]
_COLUMNS = ("group", "id", "uri", "width", "height", "bytes", "similarity", "keep")


def dedup(
    image_threshold: ThresholdOption = None,
    across: AcrossOption = None,
    where: WhereOption = None,
    output_format: PathsFormat = "table",
    null: NullOption = False,
    html: PageOption = None,
    store: StoreOption = None,
) -> None:
    """Find groups of near-duplicate images and suggest which one to keep. Nothing is deleted.

    The groups that free the most space come first. --format paths prints the images that you can
    delete.

    Example: mmindex dedup --image-threshold 0.97 --html duplicates.html
    """
    from mmindex.insight.dedup import near_duplicates
    from mmindex.search.near import default_threshold
    from mmindex.store.snapshot import open_snapshot
    from mmindex_cli.output import emit

    form, end = paths_form(output_format, null)
    snapshot = open_snapshot(store_path(store))
    threshold = default_threshold(snapshot.encoder) if image_threshold is None else image_threshold
    groups = near_duplicates(snapshot, threshold, _rows(snapshot, where), across)
    if html is not None:
        from mmindex.pages.duplicates import dedup_page
        from mmindex.pages.page import write_page

        write_page(html, dedup_page(snapshot, groups, threshold, html))
    emit(
        enumerate(groups, start=1),
        form,
        text=lambda _: _lines(groups),
        json=lambda numbered: _record(*numbered),
        tsv=((*_COLUMNS, *(["across"] if across else ())), lambda numbered: _cells(*numbered)),
        paths=lambda numbered: (one.uri for one in numbered[1].members if not one.keep),
        end=end,
    )


def _rows(snapshot: Snapshot, where: str | None) -> Rows | None:
    if where is None:
        return None
    from mmindex.search.filters import select_images

    return select_images(snapshot, where)


def _record(number: int, group: Group) -> dict[str, object]:
    return {
        "group": number,
        "images": [
            {
                "id": member.image_id,
                "uri": member.uri,
                "width": member.width,
                "height": member.height,
                "bytes": member.size_bytes,
                "similarity": round(member.similarity, 6),
                "keep": member.keep,
                **({} if member.across is None else {"across": member.across}),
            }
            for member in group.members
        ],
    }


def _cells(number: int, group: Group) -> Iterator[Sequence[Cell]]:
    for record in _record(number, group)["images"]:  # type: ignore[attr-defined]  # it is a list
        yield number, *record.values()


def _lines(groups: Iterable[Group]) -> Iterator[str]:
    from mmindex_cli.summary import size

    number = images = spare = 0
    for number, group in enumerate(groups, start=1):
        images, spare = images + len(group.members), spare + group.spare_bytes
        yield f"group {number}: {len(group.members)} images, {size(group.spare_bytes)} to free"
        for one in group.members:
            pixels = f"{one.width}x{one.height}"
            mark = "keep" if one.keep else "    "
            facts = f"{score_text(one.similarity)}  {pixels:>11}  {size(one.size_bytes):>9}"
            value = "" if one.across is None else f"{visible(one.across)}  "
            yield f"  {mark}  {facts}  {value}{visible(one.uri)}"
    if number:
        could_go = f"{images - number:,} can be deleted ({size(spare)})"
        yield f"{number:,} groups of {images:,} images; {could_go}"
    else:
        yield "no near-duplicates"
