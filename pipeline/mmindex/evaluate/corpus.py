"""The corpus as arrays of row and vector numbers, and the queries for measuring recall."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import InternalError
from mmindex.core.modality import Modality
from mmindex.store.snapshot import Snapshot, positions

Float16 = NDArray[np.float16]
Int64 = NDArray[np.int64]


class VectorSource(Protocol):
    """Vectors by id; :class:`mmindex.store.vectors.Vectors` is one.

    Ids are below ``n``; those of removed vectors are not in use. ``take(ids)`` returns float16
    (len(ids), dim), and ``blocks(rows)`` yields ``(ids (m,), float16 (m <= rows, dim))`` of the
    other vectors in the order of ids, which ``live_ids()`` lists.
    """

    n: int
    dim: int

    def take(self, ids: Int64) -> Float16: ...  # noqa: D102 - see above

    def blocks(self, rows: int) -> Iterator[tuple[Int64, Float16]]: ...  # noqa: D102

    def live_ids(self) -> Int64: ...  # noqa: D102


@dataclass(slots=True)
class VectorsInMemory:
    """An array, float16 (n, dim), as a :class:`VectorSource`."""

    vectors: Float16
    n: int = field(init=False)
    dim: int = field(init=False)

    def __post_init__(self) -> None:
        self.n, self.dim = self.vectors.shape

    def take(self, ids: Int64) -> Float16:
        """Return rows of the array."""
        return self.vectors[ids]

    def blocks(self, rows: int) -> Iterator[tuple[Int64, Float16]]:
        """Yield the array in parts with their ids."""
        for start in range(0, self.n, rows):
            part = self.vectors[start : start + rows]
            yield np.arange(start, start + len(part)), part

    def live_ids(self) -> Int64:
        """Return all ids."""
        return np.arange(self.n, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Items:
    """The rows of a table and their vectors, which rows can share.

    Attributes:
        vectors: one vector per id.
        id_of_row: int64 (rows,), the id of the vector of each row; several rows can share one.
        starts: int64 (n + 1,), the start of the rows of each id in ``rows``.
        rows: int64 (rows,), row numbers grouped by id, ascending within each id.
    """

    vectors: VectorSource
    id_of_row: Int64
    starts: Int64 = field(init=False)
    rows: Int64 = field(init=False)
    _grouped: Int64 = field(init=False)

    def __post_init__(self) -> None:
        ids = self.id_of_row
        if len(ids) and (ids.min() < 0 or ids.max() >= self.vectors.n):
            raise InternalError(f"row without a vector: ids must be in 0..{self.vectors.n - 1}")
        counts = np.bincount(ids, minlength=self.vectors.n)
        starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        rows = np.argsort(ids, kind="stable").astype(np.int64)
        object.__setattr__(self, "starts", starts)
        object.__setattr__(self, "rows", rows)
        # (id, row) as one number is ascending in ``rows``, so one binary search finds a pair.
        object.__setattr__(self, "_grouped", ids[rows] * (len(rows) + 1) + rows)

    @property
    def rows_of_id(self) -> Int64:
        """int64 (n,): the number of rows with each id."""
        return np.diff(self.starts)

    def earlier(self, ids: Int64, rows: Int64) -> Int64:
        """Return how many rows of ``ids[i]`` are below ``rows[i]``: int64 (len(ids),)."""
        stride = len(self.rows) + 1
        return np.searchsorted(self._grouped, ids * stride + rows) - self.starts[ids]


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries and their correct answers.

    Attributes:
        vectors: the source of the query vectors.
        ids: int64 (q,), the id of each query vector.
        offsets: int64 (q + 1,), the start of the correct rows of each query in ``right``.
        right: int64 (pairs,), correct rows of the gallery; at least one per query.
    """

    vectors: VectorSource
    ids: Int64
    offsets: Int64
    right: Int64

    def __post_init__(self) -> None:
        if len(self.ids) and np.diff(self.offsets).min() < 1:
            raise InternalError("a query without a correct answer cannot be ranked")

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> Queries:
        """Return queries ``start`` to ``stop``."""
        first, last = self.offsets[start], self.offsets[stop]
        return Queries(
            self.vectors,
            self.ids[start:stop],
            self.offsets[start : stop + 1] - first,
            self.right[first:last],
        )


@dataclass(frozen=True, slots=True)
class Corpus:
    """Both sides of a corpus, and which caption belongs to which image.

    Attributes:
        images: the rows of the ``images`` table.
        captions: the rows of the ``captions`` table; None if there are none.
        image_of_caption: int64 (captions,), the row of each caption in ``images``.
    """

    images: Items
    captions: Items | None
    image_of_caption: Int64


def load_corpus(snapshot: Snapshot) -> Corpus:
    """Read the tables of an indexed version.

    Memory: the key columns during the look-up (64 bytes per row), then 32 bytes per row.

    Raises:
        NoInputError: the version has not been indexed.
        DataError: a row has no vector, a caption no image, or an object is damaged.
    """

    def items(side: Modality) -> Items:
        return Items(snapshot.vectors(side), snapshot.row_ids(side))

    images = items(Modality.IMAGE)
    if Modality.TEXT not in snapshot.manifest.indexes:
        return Corpus(images, None, np.empty(0, dtype=np.int64))
    return Corpus(images, items(Modality.TEXT), image_of_caption(snapshot))


def image_of_caption(snapshot: Snapshot) -> Int64:
    """Return the row of each caption in ``images``: int64 (captions,).

    Raises:
        DataError: a caption has no image, or an object is damaged.
    """
    known = snapshot.table("images", ["image_id"])["image_id"]
    owners = snapshot.table("captions", ["image_id"])["image_id"]
    return positions(owners, known, "captions: a caption belongs to no image")


def slices(starts: Int64, sizes: Int64) -> Int64:
    """Return the positions of slices, each from its start on, one after the other: int64 (sum,)."""
    offsets = np.cumsum(sizes) - sizes
    places: Int64 = np.repeat(starts - offsets, sizes) + np.arange(sizes.sum())
    return places


def sample(n: int, wanted: int, seed: int) -> Int64:
    """Return ``wanted`` of the numbers 0..n-1, ascending, seeded; all if n is not larger."""
    if n <= wanted:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, wanted, replace=False))


def caption_queries(captions: Items, image_of_caption: Int64, rows: Int64) -> Queries:
    """Return text-to-image queries: each of these captions searches for its own image."""
    return Queries(
        vectors=captions.vectors,
        ids=captions.id_of_row[rows],
        offsets=np.arange(len(rows) + 1),
        right=image_of_caption[rows],
    )


def image_queries(images: Items, image_of_caption: Int64, rows: Int64) -> Queries:
    """Return image-to-text queries: each of these images searches for any of its captions."""
    grouped = np.argsort(image_of_caption, kind="stable").astype(np.int64)
    counts = np.bincount(image_of_caption, minlength=len(images.id_of_row))
    starts = (np.cumsum(counts) - counts)[rows]
    sizes = counts[rows]
    return Queries(
        vectors=images.vectors,
        ids=images.id_of_row[rows],
        offsets=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        right=grouped[slices(starts, sizes)],
    )
