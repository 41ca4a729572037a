"""``dedup``: groups of images that are nearly the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmindex_cli.common import StoreOption, store_path
from mmindex_cli.options import WhereOption

if TYPE_CHECKING:
    from mmindex.insight.dedup import Group

ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--image-threshold",
        help="Least cosine similarity of two images that count as the same. "
        "[default: 0.98 for the embedded model, else 0.96]",
    ),
]
FormatOption = Annotated[
    Literal["table", "json", "tsv"],
    typer.Option("--format", help="table for people; json: one group a line; tsv: one image."),
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write the groups as a web page.")
]


def dedup(
    image_threshold: ThresholdOption = None,
    where: WhereOption = None,
    output_format: FormatOption = "table",
    html: HtmlOption = None,
    store: StoreOption = None,
) -> None:
    """Find groups of near-duplicate images, and which one of each to keep. Nothing is deleted.

    Example: mmindex dedup --image-threshold 0.97 --html duplicates.html
    """
    from mmindex.insight.dedup import default_threshold, near_duplicates
    from mmindex.pages.duplicates import dedup_page
    from mmindex.pages.page import write_page
    from mmindex.search.filters import select_images
    from mmindex.store.snapshot import open_snapshot
    from mmindex_cli.output import print_line

    snapshot = open_snapshot(store_path(store))
    threshold = default_threshold(snapshot.encoder) if image_threshold is None else image_threshold
    rows = None
    if where is not None:
        rows = select_images(snapshot, where)
    groups = near_duplicates(snapshot, threshold, rows)
    if html is not None:
        write_page(html, dedup_page(snapshot, groups, threshold))
    lines = {"table": _table, "json": _json, "tsv": _tsv}[output_format](groups)
    for line in lines:
        print_line(line, output_format)


def _json(groups: tuple[Group, ...]) -> Iterator[str]:
    from mmindex.core.display import inert_json

    for number, group in enumerate(groups, start=1):
        yield inert_json(
            {
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
                    }
                    for member in group.members
                ],
            }
        )


def _tsv(groups: tuple[Group, ...]) -> Iterator[str]:
    from mmindex_cli.output import tsv_cell

    yield "group\tid\turi\twidth\theight\tbytes\tsimilarity\tkeep"
    for number, group in enumerate(groups, start=1):
        for one in group.members:
            cells = (str(number), tsv_cell(one.image_id), tsv_cell(one.uri), str(one.width))
            rest = (str(one.height), str(one.size_bytes), f"{one.similarity:.6f}")
            yield "\t".join((*cells, *rest, str(int(one.keep))))


def _table(groups: tuple[Group, ...]) -> Iterator[str]:
    from mmindex.core.display import visible

    for number, group in enumerate(groups, start=1):
        yield f"group {number}: {len(group.members)} images"
        for one in group.members:
            size = f"{one.width}x{one.height}"
            mark = "keep" if one.keep else "    "
            yield f"  {mark}  {one.similarity:6.4f}  {size:>11}  {visible(one.image_id)}"
    if not groups:
        yield "no near-duplicates"
        return
    images = sum(len(group.members) for group in groups)
    spare = sum(group.spare_bytes for group in groups)
    yield (
        f"{len(groups):,} groups of {images:,} images; "
        f"{images - len(groups):,} could go ({spare / 1e6:,.1f} MB)"
    )
