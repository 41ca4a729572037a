"""The map of a corpus as one HTML file, see :mod:`mmindex.pages.page`.

Its script draws the points. Everything that is not a position is also on the page without it:
groups with their typical images, and outliers.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from mmindex.core.display import score_text, visible
from mmindex.insight.corpus_map import CorpusMap, MapGroup, MapPoint
from mmindex.media.files import is_remote
from mmindex.media.uris import split_uri
from mmindex.pages.page import Thumb, render, shown_model, thumb
from mmindex.pages.places import Place, place_of
from mmindex.pages.tiles import Tiles, draw_tiles
from mmindex.search.vectorize import warning_about
from mmindex.store.snapshot import Snapshot

_TYPICAL: Final = 4  # images of a group
_PIXELS: Final = 256
_MAX_CHARACTERS: Final = 160
# With more images, thumbnails would hide the dots.
_FEW: Final = 600
_NAMING: Final = {
    "captions": "Each group of similar images has the name of the nearest caption of the corpus. "
    "Its most typical images are shown.",
    "labels": "Each group of similar images has the name of the nearest of your labels. Its most "
    "typical images are shown.",
    "": "The corpus has no captions for names. The most typical images of each group are shown.",
}


@dataclass(frozen=True, slots=True)
class Card:
    """An image in the lists; ``similarity``: the mean one to its nearest images."""

    id: str
    place: Place
    thumb: Thumb
    alt: str
    caption: str
    similarity: str


def map_page(
    snapshot: Snapshot,
    found: CorpusMap,
    *,
    where: str | None = None,
    labelled: bool = False,
    page: Path | None = None,
) -> str:
    """Return the HTML page of a map.

    Args:
        snapshot: the version.
        found: its map.
        where: the condition on its images, or None.
        labelled: whether the names of groups are labels of the user.
        page: the file of the page, for links to images; None: no links.
    """
    there = [_may_be_there(point.uri) for point in found.points]
    tiles = draw_tiles([point.uri for point in found.points], _order(found, there))
    places = [
        place_of(point.uri, point.id, page if is_there else None)
        for point, is_there in zip(found.points, there, strict=True)
    ]
    named = any(group.name for group in found.groups)
    return render(
        "map.html",
        ["base.css", "cards.css", "tables.css", "map.css"],
        script="map.js" if found.points else "",
        found=found,
        where=where,
        model=shown_model(snapshot.encoder),
        naming=_NAMING["labels" if labelled else "captions" if named else ""],
        groups=[_typical(found, group) for group in found.groups],
        outliers=[_card(found.points[at], page) for at in found.outliers],
        tiles=tiles.places,
        show_pictures=len(found.points) <= _FEW,
        data=_data(found, tiles) | _files(places),
        warnings=[warning_about(snapshot)],
    )


def _may_be_there(uri: str) -> bool:
    """Return whether an image may exist; vectors from other programs have none."""
    path, _ = split_uri(uri)
    return is_remote(path) or os.path.exists(path)  # noqa: PTH110 # names may not be UTF-8


def _order(found: CorpusMap, there: Sequence[bool]) -> list[int]:
    """Return the points in the order of their thumbnails: typical ones, outliers, then others."""
    typical = [group.typical[rank] for rank in range(_TYPICAL) for group in found.groups
               if rank < len(group.typical)]  # fmt: skip
    others = np.random.default_rng(found.seed).permutation(len(found.points)).tolist()
    return [at for at in dict.fromkeys((*typical, *found.outliers, *others)) if there[at]]


def _typical(found: CorpusMap, group: MapGroup) -> tuple[MapGroup, list[Card]]:
    return group, [_card(found.points[at], None) for at in group.typical[:_TYPICAL]]


def _card(point: MapPoint, page: Path | None) -> Card:
    image = thumb(point.uri, _PIXELS)
    place = place_of(point.uri, point.id, None if image.missing else page)
    caption = _shortened(point.caption or "")
    similarity = "" if point.similarity is None else score_text(point.similarity)
    return Card(point.id, place, image, caption.strip() or place.name, caption, similarity)


def _data(found: CorpusMap, tiles: Tiles) -> dict[str, Any]:
    """Return what the script needs; numbers of points are packed as little-endian arrays."""
    points = found.points
    xy = np.array([(point.x, point.y) for point in points], dtype=np.float64).reshape(-1, 2)
    tile_of = np.full(len(points), -1, dtype="<i4")
    tile_of[list(tiles.places)] = np.arange(len(tiles.places))
    located = any(point.location for point in points)
    return {
        "count": len(points),
        "xy": _packed(np.rint(xy * 65_535).astype("<u2")),
        "groups": _packed(np.array([point.group for point in points], dtype=np.uint8)),
        "tile_of": _packed(tile_of),
        "tile_sizes": _packed(np.array(tiles.sizes, dtype=np.uint8)),
        "sheets": tiles.sheets,
        "tile": tiles.pixels,
        "columns": tiles.columns,
        "ids": [visible(point.id) for point in points],
        "captions": [visible(_shortened(point.caption or "")) for point in points],
        "copies": _packed(np.array([point.copies for point in points], dtype="<u4")),
        "locations": [_location(point) for point in points] if located else None,
        "names": _names(found.groups),
    }


def _files(places: Sequence[Place]) -> dict[str, Any]:
    """Return the names and links of all points; each folder is listed once."""
    folders: dict[str, int] = {}
    parts = [place.href.rpartition("/") for place in places]
    of = [folders.setdefault(folder + slash, len(folders)) if slash else -1
          for folder, slash, _ in parts]  # fmt: skip
    return {
        "files": [visible(place.name) for place in places],
        "folders": [*folders],
        "folder_of": _packed(np.array(of, dtype="<i4")),
        "links": [name for _, _, name in parts],
    }


def _names(groups: Sequence[MapGroup]) -> list[dict[str, Any]]:
    if len(groups) < 2:  # a name for everything says nothing
        return []
    return [
        {"number": one.number, "name": visible(_shortened(one.name)), "x": one.x, "y": one.y}
        for one in groups
    ]


def _location(point: MapPoint) -> str:
    return "" if point.location is None else "{:.5f}, {:.5f}".format(*point.location)


def _packed(values: Any) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "…"
