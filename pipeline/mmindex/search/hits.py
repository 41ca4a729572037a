"""Convert the keys that a searcher found to hits, the rows of the corpus.

The index contains each content once, and the tables contain all of its names. One key therefore
becomes one hit for each row with this key, in the order of the table. One pass over a table serves
a whole batch of queries.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.core.records import Hit, NamedHit
from mmindex.store.objects import contents, valid_text
from mmindex.store.snapshot import TABLES, Snapshot

# Columns that queries use repeatedly to find rows.
_LOOKED_UP = ("key", "image_id")


@dataclass(frozen=True, slots=True)
class Ranked:
    """The result of one query: keys, best first, with their scores: cosine similarities or BM25."""

    keys: Sequence[str]
    scores: Sequence[float]
    cosine: bool = True


@dataclass(frozen=True, slots=True)
class Limit:
    """The limits of a result.

    Attributes:
        k: the maximum number of hits.
        min_score: the lowest score of a hit; None for any.
        distinct: leave out near-duplicates of a better hit; see :mod:`mmindex.search.distinct`.
        good: leave out weak hits, see :mod:`mmindex.search.calibration`.
    """

    k: int = 10
    min_score: float | None = None
    distinct: bool = False
    good: bool = False


@dataclass(frozen=True, slots=True)
class IndexedImage:
    """The columns of an ``images`` row that results need."""

    image_id: str
    key: str
    uri: str


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of a table row that a hit contains."""

    id: str
    uri: str
    caption: str | None
    image_id: str


def hits(
    snapshot: Snapshot,
    to: Modality,
    found: Sequence[Ranked],
    limit: Limit,
    rows: NDArray[np.bool_] | None = None,
) -> list[tuple[Hit, ...]]:
    """Return the hits of each query, with ranks from 1.

    ``k`` counts hits, which are rows: an image with two names counts twice. Image hits have the id
    of the image and no caption; text hits have the id and the text of the caption, and the uri of
    its image.

    Args:
        snapshot: the version.
        to: the side that was searched.
        found: the result of the searcher for each query.
        limit: the limits of a result.
        rows: bool (images,): only these rows of the ``images`` table, or their captions, can be
            hits, even if other rows have the same content; None: all.

    Raises:
        DataError: no row of the table has a key of the index, or the tables are damaged.
    """
    if not found:
        return []
    by_key = rows_by_key(snapshot, to, {key for ranked in found for key in ranked.keys}, rows)
    return [tuple(islice(_ranked_hits(ranked, by_key, limit), limit.k)) for ranked in found]


def rows_by_key(
    snapshot: Snapshot, to: Modality, wanted: set[str], rows: NDArray[np.bool_] | None
) -> dict[str, list[Row]]:
    """Return the rows with each key, in the order of the table; raises as :func:`hits`."""
    named = _image_rows if to is Modality.IMAGE else _caption_rows
    by_key = named(snapshot, wanted, rows)
    missing = wanted - by_key.keys()
    if missing:
        raise DataError(
            f"version {snapshot.manifest.version}: the {to} index contains {min(missing)},"
            " but its table does not",
            "run `mmindex check --full`, then `mmindex build`",
        )
    return by_key


def _ranked_hits(ranked: Ranked, by_key: dict[str, list[Row]], limit: Limit) -> Iterator[Hit]:
    rank = 0
    for key, score in zip(ranked.keys, ranked.scores, strict=True):
        if limit.min_score is not None and score < limit.min_score:
            continue  # later hits can have higher scores, see :mod:`.hubness`
        for row in by_key[key]:
            rank += 1
            shown = shown_score(score, ranked.cosine)
            yield Hit(rank, shown, row.id, row.uri, row.caption, row.image_id)


def shown_score(score: float, cosine: bool) -> float:
    """Return a score as shown: with rounding to float16, a cosine can exceed 1 by 1e-4."""
    return min(score, 1.0) if cosine else score


def _image_rows(
    snapshot: Snapshot, keys: set[str], only: NDArray[np.bool_] | None
) -> dict[str, list[Row]]:
    by_key: dict[str, list[Row]] = defaultdict(list)
    for image in _images(snapshot, "key", keys, only):
        row = Row(image.image_id, image.uri, None, image.image_id)
        by_key[image.key].append(row)
    return by_key


def _caption_rows(
    snapshot: Snapshot, keys: set[str], only: NDArray[np.bool_] | None
) -> dict[str, list[Row]]:
    columns = ["caption_id", "key", "image_id", "text"]
    found = list(_select(snapshot, "captions", columns, "key", keys))
    owners = {image_id for _, _, image_id, _ in found}
    uris = {p.image_id: p.uri for p in _images(snapshot, "image_id", owners, only)}
    by_key: dict[str, list[Row]] = defaultdict(list)
    for caption_id, key, image_id, text in found:
        if image_id not in uris:
            if only is not None:
                continue
            raise DataError(f"caption {caption_id} belongs to no image", "run `mmindex build`")
        by_key[key].append(Row(caption_id, uris[image_id], text, image_id))
    return by_key


def find_image(snapshot: Snapshot, column: str, value: str) -> IndexedImage | None:
    """Return the first ``images`` row whose ``image_id``, ``uri`` or ``key`` is ``value``."""
    return next(_images(snapshot, column, {value}), None)


def find_images(snapshot: Snapshot, column: str, values: set[str]) -> dict[str, IndexedImage]:
    """Run :func:`find_image` for many values in one pass; values without a row have no entry."""
    found: dict[str, IndexedImage] = {}
    for image in _images(snapshot, column, values):
        found.setdefault(getattr(image, column), image)
    return found


def captions_of(snapshot: Snapshot, image_ids: Iterable[str]) -> dict[str, list[str]]:
    """Return the captions of these images in table order; images without captions have no entry."""
    texts: dict[str, list[str]] = defaultdict(list)
    columns = ["image_id", "text"]
    wanted = set(image_ids)
    for image_id, text in _select(snapshot, "captions", columns, "image_id", wanted):
        texts[image_id].append(text)
    return dict(texts)


def hits_table(found: Sequence[NamedHit], details: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return the hits as a table, one row per hit, with columns of their images.

    Args:
        found: the hits.
        details: rows of the ``images`` table that include those of the hits.
        names: the columns to include.
    """
    columns: dict[str, Any] = {
        "rank": pa.array([hit.rank for hit in found], pa.int64()),
        "score": pa.array([hit.score for hit in found], pa.float64()),
    }
    if any(hit.copies is not None for hit in found):
        columns["copies"] = pa.array([hit.copies for hit in found], pa.int64())
    for name in ("id", "uri", "caption", "image_id"):
        texts = [getattr(hit, name) for hit in found]
        data = [None if one is None else one.encode("utf-8", "surrogatepass") for one in texts]
        safe = [None if one is None else one.decode("utf-8", "replace") for one in data]
        columns[name] = pa.array(safe, pa.string())
    if any(hit.probability is not None for hit in found):
        columns["probability"] = pa.array([hit.probability for hit in found], pa.float64())
        columns["weak"] = pa.array([hit.weak for hit in found], pa.bool_())
    place = {name: row for row, name in enumerate(contents(details["image_id"]))}
    rows = pa.array([place[hit.image_id] for hit in found], pa.int64())
    for name in names:
        free = f"metadata.{name}" if name in columns else name
        columns[free] = valid_text(details[name]).take(rows)
    return pa.table(columns)


def names_of(snapshot: Snapshot, side: Modality, keys: pa.Array) -> NDArray[np.object_]:
    """Return the first id, in table order, of the contents with these keys.

    Args:
        snapshot: the version.
        side: ``image`` for ids of images, ``text`` for ids of captions.
        keys: string (n,), in hex, without duplicates.

    Returns:
        object (n,): str.

    Raises:
        DataError: no row of the table has a key, or the table is damaged.
    """
    column = "image_id" if side is Modality.IMAGE else "caption_id"
    names = np.full(len(keys), None, dtype=object)
    with snapshot.open_parquet(TABLES[side]) as file:
        for group in range(file.num_row_groups):
            looked_at = file.read_row_group(group, columns=["key"])["key"]
            places = pc.index_in(looked_at, value_set=keys)
            found = places.is_valid()
            if pc.any(found).as_py():
                rows = file.read_row_group(group, columns=[column])[column].filter(found)
                for place, name in zip(places.drop_null().to_pylist(), contents(rows), strict=True):
                    if names[place] is None:
                        names[place] = name
    nameless = np.flatnonzero(names == None)  # noqa: E711 # compared for each element
    if len(nameless):
        raise DataError(
            f"version {snapshot.manifest.version}: {TABLES[side]} has no row for"
            f" {keys[int(nameless[0])]}",
            "run `mmindex check --full`, then `mmindex build`",
        )
    return names


def _images(
    snapshot: Snapshot, column: str, values: set[str], only: NDArray[np.bool_] | None = None
) -> Iterator[IndexedImage]:
    columns = ["image_id", "key", "uri"]
    for row in _select(snapshot, "images", columns, column, values, only):
        yield IndexedImage(*row)


def _select(
    snapshot: Snapshot,
    table: str,
    columns: list[str],
    column: str,
    values: set[str],
    only: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[str, ...]]:
    """Yield the rows whose ``column`` is in ``values``, in table order, as tuples of ``columns``.

    With ``only`` (bool (rows,)), only the marked rows are used. The first queries of a process read
    the whole column, one row group at a time, and the other columns only from row groups with a
    match. Later queries look up the rows.
    """
    if not values:
        return
    known = snapshot.rows(table) if column in _LOOKED_UP else None
    if known is not None and (found := known.select(columns, column, values, only)) is not None:
        yield from found
        return
    # Bytes instead of strings: ids and captions can contain lone surrogates, which are not UTF-8.
    wanted = _as_bytes(values)
    first = 0
    with snapshot.open_parquet(table) as file:
        for group in range(file.num_row_groups):
            looked_at = file.read_row_group(group, columns=[column])[column].cast(pa.binary())
            mask = pc.is_in(looked_at, value_set=wanted)
            if only is not None:
                mask = pc.and_(mask, pa.array(only[first : first + len(looked_at)]))
            first += len(looked_at)
            if pc.any(mask).as_py():
                rows = file.read_row_group(group, columns=columns).filter(mask)
                yield from zip(*(contents(rows[name]) for name in columns), strict=True)


def _as_bytes(texts: Iterable[str]) -> pa.Array:
    return pa.array([text.encode("utf-8", "surrogatepass") for text in texts], pa.binary())
