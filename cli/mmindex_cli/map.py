"""``map``: show a corpus as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex.core.display import score_text, visible
from mmindex.core.records import LOCATION_COLUMNS
from mmindex_cli.common import store_path
from mmindex_cli.options import DeviceOption, PageOption, StoreOption, TableFormat, WhereOption

if TYPE_CHECKING:
    from mmindex.insight.corpus_map import CorpusMap
    from mmindex_cli.output import Cell

LabelsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Name groups after these labels instead of captions (a file as for `classify`).",
    ),
]
SeedOption = Annotated[
    int, typer.Option(min=0, max=2**31 - 1, help="Seed: the same seed draws the same map.")
]
LocationOption = Annotated[
    bool, typer.Option("--with-location", help="Also show the locations of images (lat, lon).")
]
_COLUMNS = ("id", "uri", "x", "y", "group", "name", "similarity", "outlier", "copies")


def map_(
    labels: LabelsOption = None,
    seed: SeedOption = 0,
    where: WhereOption = None,
    with_location: LocationOption = False,
    output_format: TableFormat = "table",
    html: PageOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Draw a map of the images: similar ones are near each other, in named groups.

    The page has the map, the typical images of each group, and outliers.

    Example: mmindex map --html map.html
    """
    import mmindex
    from mmindex_cli.output import emit

    with mmindex.open(store_path(store), device=device, with_location=with_location) as index:
        found = index.map(html, labels=labels, where=where, seed=seed)
    emit(
        [found],
        output_format,
        text=lambda _: _lines(found),
        json=lambda _: _record(found, with_location),
        tsv=(
            (*_COLUMNS, *(LOCATION_COLUMNS if with_location else ())),
            lambda _: (tuple(row.values()) for row in _records(found, with_location)),
        ),
    )


def _record(found: CorpusMap, with_location: bool) -> dict[str, object]:
    points = found.points
    return {
        "version": found.version,
        "images": found.images,
        "distinct": found.distinct,
        "sampled": found.sampled,
        "method": found.method,
        "reason": found.reason or None,
        "seed": found.seed,
        "groups": [
            {
                "group": one.number,
                "name": one.name or None,
                "images": one.size,
                "x": round(one.x, 6),
                "y": round(one.y, 6),
                "typical": [points[at].id for at in one.typical],
            }
            for one in found.groups
        ],
        "outliers": [points[at].id for at in found.outliers],
        "points": list(_records(found, with_location)),
    }


def _records(found: CorpusMap, with_location: bool) -> Iterator[dict[str, Cell]]:
    """Yield the fields of each point, in the order of the TSV columns."""
    names = {one.number: one.name or None for one in found.groups}
    unusual = set(found.outliers)
    for at, one in enumerate(found.points):
        fields: dict[str, Cell] = {
            "id": one.id,
            "uri": one.uri,
            "x": round(one.x, 6),
            "y": round(one.y, 6),
            "group": one.group,
            "name": names[one.group],
            "similarity": None if one.similarity is None else round(one.similarity, 6),
            "outlier": at in unusual,
            "copies": one.copies,
        }
        if with_location:
            place = one.location or (None, None)
            fields |= dict(zip(LOCATION_COLUMNS, place, strict=True))
        yield fields


def _lines(found: CorpusMap) -> Iterator[str]:
    different = "" if found.distinct == found.images else f", {found.distinct:,} different"
    yield f"{found.images:,} images{different}, positions by {found.method}"
    for group in found.groups:
        yield visible(f"  {group.size:>7,}  {group.name or f'group {group.number}'}")
    if found.outliers:
        yield f"outliers: {len(found.outliers):,}"
    for at in found.outliers:
        yield visible(f"  {score_text(found.points[at].similarity or 0.0)}  {found.points[at].uri}")
    if found.sampled:
        yield f"note: the map shows a sample of {len(found.points):,} images (seed {found.seed})"
    if found.reason:
        yield f"note: PCA instead of t-SNE: {found.reason}"
