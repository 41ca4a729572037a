"""A map of the images of a version: positions in a plane, named groups, and outliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.core.records import LOCATION_COLUMNS
from mmindex.evaluate.corpus import sample
from mmindex.insight.clusters import by_size, centres, distinct_names, group, likeness
from mmindex.insight.labels import Label, default_templates, find_templates, label_vectors
from mmindex.insight.projection import Neighbours, components, neighbours, project
from mmindex.search.columns import output_columns
from mmindex.search.filters import ids_of
from mmindex.search.hits import captions_of, rows_by_key
from mmindex.search.near import unit_rows
from mmindex.search.vectorize import Vectorizer
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot

if TYPE_CHECKING:
    from mmindex.search.filters import Rows

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

MOST_POINTS: Final = 100_000
"""The largest number of points; with more images, they are a seeded sample."""
# Captions among which the names of groups are searched.
_MOST_TEXTS: Final = 20_000
# Like the neighbours that other measures of outliers use (local outlier factor: 10 to 20).
_NEAR: Final = 10
# Outliers: one image of a hundred, within these limits, but never more than one of eight.
_FEWEST_OUTLIERS: Final = 8
_MOST_OUTLIERS: Final = 24
_SLIGHT: Final = 1e-3  # differences between equal images after rounding to float16
_BLOCK: Final = 4_096


@dataclass(frozen=True, slots=True)
class MapLabels:
    """Names for groups, to use instead of captions.

    Attributes:
        names: the labels.
        vectors: float32 (labels, dim), unit length.
    """

    names: tuple[str, ...]
    vectors: Float32

    @classmethod
    def of(cls, labels: Sequence[Label], vectorizer: Vectorizer) -> MapLabels:
        """Encode labels with the model of the index."""
        templates = find_templates(default_templates(vectorizer.snapshot.encoder.model))
        vectors = label_vectors(labels, templates, vectorizer.texts)
        return cls(tuple(label.name for label in labels), vectors)


@dataclass(frozen=True, slots=True)
class MapPoint:
    """An image on the map.

    Attributes:
        id, uri: the first image with this content.
        x, y: the position, 0 to 1; y grows upwards.
        group: the number of its group, from 1.
        similarity: the mean cosine similarity to its nearest images; None for a single image.
        copies: the number of other images with the same bytes.
        caption: its first caption, or None.
        location: latitude and longitude in degrees, only on request; None if unknown.
    """

    id: str
    uri: str
    x: float
    y: float
    group: int
    similarity: float | None
    copies: int
    caption: str | None
    location: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class MapGroup:
    """A group of similar images.

    Attributes:
        number: from 1, the largest first.
        name: the nearest caption or label; empty if there is none.
        size: the number of points.
        x, y: its middle.
        typical: positions in :attr:`CorpusMap.points`, the most typical first.
    """

    number: int
    name: str
    size: int
    x: float
    y: float
    typical: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CorpusMap:
    """The map of a version.

    Attributes:
        version: the version.
        images: the number of images that the map is about.
        distinct: the number of different ones; each is one point.
        method: ``t-SNE`` or ``PCA``.
        reason: why it is not t-SNE; empty for t-SNE.
        seed: the seed of everything random.
        points: the images, in the order of the table; a sample if there are more.
        groups: the groups, the largest first.
        outliers: positions in ``points`` of the images with the lowest similarity to their nearest
            images, the lowest first: about one of a hundred.
    """

    version: int
    images: int
    distinct: int
    method: str
    reason: str
    seed: int
    points: tuple[MapPoint, ...]
    groups: tuple[MapGroup, ...]
    outliers: tuple[int, ...]

    @property
    def sampled(self) -> bool:
        """Whether some images have no point."""
        return len(self.points) < self.distinct


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The contents on the map: int64 (n,) each.

    Attributes:
        rows: their first rows in the table, ascending.
        ids: their ids in the index.
        copies: the numbers of other rows with the same content.
        images, distinct: as in :class:`CorpusMap`.
    """

    rows: Int64
    ids: Int64
    copies: Int64
    images: int
    distinct: int


def corpus_map(
    snapshot: Snapshot,
    *,
    rows: Rows | None = None,
    labels: MapLabels | None = None,
    seed: int = 0,
    with_location: bool = False,
) -> CorpusMap:
    """Return the map of a version; no model is loaded.

    Args:
        snapshot: the version.
        rows: bool (images,): the images on the map; None: all.
        labels: names for the groups; groups with the same label become one. None: captions.
        seed: the seed of the sample, of the positions and of the groups.
        with_location: include the locations of images.

    Raises:
        NoInputError: the version has no images to search.
        DataError: the store is damaged.
    """
    chosen = _choose(snapshot, rows, seed)
    vectors = _unit(snapshot, chosen.ids)
    parts = components(vectors)
    near = neighbours(parts)
    drawn = project(parts, near, seed)
    groups, names = _named(snapshot, vectors, group(drawn.xy, seed), rows, labels, seed)
    similar = _similarities(vectors, near)
    return CorpusMap(
        version=snapshot.manifest.version,
        images=chosen.images,
        distinct=chosen.distinct,
        method=drawn.method,
        reason=drawn.reason,
        seed=seed,
        points=_points(snapshot, chosen, drawn.xy, groups, similar, with_location=with_location),
        groups=_groups(vectors, drawn.xy, groups, names),
        outliers=_outliers(similar),
    )


def _choose(snapshot: Snapshot, rows: Rows | None, seed: int) -> _Chosen:
    ids = snapshot.row_ids(Modality.IMAGE)
    wanted = np.arange(len(ids)) if rows is None else np.flatnonzero(rows)
    found, first, counts = np.unique(ids[wanted], return_index=True, return_counts=True)
    some = sample(len(found), MOST_POINTS, seed)
    some = some[np.argsort(first[some], kind="stable")]
    return _Chosen(wanted[first[some]], found[some], counts[some] - 1, len(wanted), len(found))


def _unit(snapshot: Snapshot, ids: Int64) -> Float32:
    vectors = snapshot.vectors(Modality.IMAGE)
    found = np.empty((len(ids), vectors.dim), dtype=np.float32)
    for start in range(0, len(ids), _BLOCK):
        found[start : start + _BLOCK] = unit_rows(vectors.take(ids[start : start + _BLOCK]))
    return found


def _similarities(vectors: Float32, near: Neighbours) -> Float64 | None:
    """Return the mean cosine similarity to the nearest others: float64 (n,)."""
    others = near.ids[:, :_NEAR]
    if not others.size:
        return None
    found = np.empty(len(vectors))
    for start in range(0, len(vectors), _BLOCK):
        here = slice(start, start + _BLOCK)
        found[here] = np.einsum("nd,nkd->nk", vectors[here], vectors[others[here]]).mean(axis=1)
    return np.minimum(found, 1.0)


def _outliers(similar: Float64 | None) -> tuple[int, ...]:
    if similar is None:
        return ()
    count = min(max(len(similar) // 100, _FEWEST_OUTLIERS), _MOST_OUTLIERS, len(similar) // 8)
    order = np.argsort(similar, kind="stable")[:count]
    return tuple(order[similar[order] < np.median(similar) - _SLIGHT].tolist())


def _named(
    snapshot: Snapshot,
    vectors: Float32,
    groups: Int64,
    rows: Rows | None,
    labels: MapLabels | None,
    seed: int,
) -> tuple[Int64, Sequence[str]]:
    """Return the groups and their names; with labels, groups with the same label become one."""
    middles = centres(vectors, groups)
    if not len(middles):
        return groups, ()
    if labels is not None:
        best = likeness(middles, labels.vectors).argmax(axis=1)
        merged = best[groups]
        together = by_size(merged)
        _, first = np.unique(together, return_index=True)
        return together, [labels.names[at] for at in merged[first].tolist()]
    texts, said = _texts(snapshot, rows, seed)
    if not said:
        return groups, [""] * len(middles)
    return groups, distinct_names(likeness(middles, texts), said)


def _texts(snapshot: Snapshot, rows: Rows | None, seed: int) -> tuple[Float32, list[str]]:
    """Return vectors and texts of captions of the images; a sample if there are many."""
    if Modality.TEXT not in snapshot.manifest.indexes:
        return np.empty((0, 0), dtype=np.float32), []
    vectors = snapshot.vectors(Modality.TEXT)
    ids = vectors.live_ids() if rows is None else ids_of(snapshot, Modality.TEXT, rows)
    ids = ids[sample(len(ids), _MOST_TEXTS, seed)]
    keys = snapshot.keys_at(Modality.TEXT, ids)
    by_key = rows_by_key(snapshot, Modality.TEXT, set(keys), None)
    said = [by_key[key][0].caption or "" for key in keys]
    kept = [at for at, text in enumerate(said) if text.strip()]
    return unit_rows(vectors.take(ids[kept])).astype(np.float32), [said[at] for at in kept]


def _groups(
    vectors: Float32, xy: Float32, groups: Int64, names: Sequence[str]
) -> tuple[MapGroup, ...]:
    middles = centres(vectors, groups)
    found = []
    for number, name in enumerate(names):
        members = np.flatnonzero(groups == number)
        typical = np.argsort(-(vectors[members] @ middles[number]), kind="stable")
        x, y = np.median(xy[members], axis=0).tolist()
        ranked = tuple(members[typical[:_NEAR]].tolist())
        found.append(MapGroup(number + 1, name, len(members), x, y, ranked))
    return tuple(found)


def _points(
    snapshot: Snapshot,
    chosen: _Chosen,
    xy: Float32,
    groups: Int64,
    similar: Float64 | None,
    *,
    with_location: bool,
) -> tuple[MapPoint, ...]:
    there = output_columns(snapshot, with_location=with_location)
    located = set(LOCATION_COLUMNS) <= set(there)
    columns = ["image_id", "uri", *(LOCATION_COLUMNS if located else ())]
    table = snapshot.take("images", columns, chosen.rows)
    names, uris = contents(table["image_id"]), contents(table["uri"])
    where: list[tuple[float, float] | None] = [None] * len(names)
    if located:
        places = zip(*(table[name].to_pylist() for name in LOCATION_COLUMNS), strict=True)
        where = [_known(*place) for place in places]
    said: dict[str, list[str]] = {}
    if Modality.TEXT in snapshot.manifest.indexes:
        said = captions_of(snapshot, names)
    return tuple(
        MapPoint(
            id=name,
            uri=uris[at],
            x=float(xy[at, 0]),
            y=float(xy[at, 1]),
            group=int(groups[at]) + 1,
            similarity=None if similar is None else float(similar[at]),
            copies=int(chosen.copies[at]),
            caption=next(iter(said.get(name, ())), None),
            location=where[at],
        )
        for at, name in enumerate(names)
    )


def _known(lat: float | None, lon: float | None) -> tuple[float, float] | None:
    return None if lat is None or lon is None else (lat, lon)
