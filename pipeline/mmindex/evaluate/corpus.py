"""The corpus as arrays of row and vector numbers, and the queries that recall is measured with."""

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

    Ids are below ``n``; those of removed vectors are in use no more. ``take(ids)`` gives float16
    (len(ids), dim), ``blocks(rows)`` streams ``(ids (m,), float16 (m <= rows, dim))`` of what is
    not removed in the order of ids, which ``live_ids()`` lists.
    """

    n: int
    dim: int

    def take(self, ids: Int64) -> Float16: ...  # noqa: D102 - said above

    def blocks(self, rows: int) -> Iterator[tuple[Int64, Float16]]: ...  # noqa: D102

    def live_ids(self) -> Int64: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Items:
    """The rows of one table and the vectors that they share.

    Attributes:
        vectors: one vector for each id.
        id_of_row: int64 (rows,), the id of each row's vector; several rows may share one.
        starts: int64 (n + 1,), where each id's rows begin in ``rows``.
        rows: int64 (rows,), row numbers grouped by id, ascending inside each id.
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
        # (id, row) as one number ascends along ``rows``: one binary search then finds a pair.
        object.__setattr__(self, "_grouped", ids[rows] * (len(rows) + 1) + rows)

    @property
    def rows_of_id(self) -> Int64:
        """int64 (n,): how many rows share each id."""
        return np.diff(self.starts)

    def earlier(self, ids: Int64, rows: Int64) -> Int64:
        """How many rows of ``ids[i]`` are lower than ``rows[i]``: int64 (len(ids),)."""
        stride = len(self.rows) + 1
        return np.searchsorted(self._grouped, ids * stride + rows) - self.starts[ids]


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries and their right answers.

    Attributes:
        vectors: where the queries' vectors are.
        ids: int64 (q,), each query's vector.
        offsets: int64 (q + 1,), where each query's right rows begin in ``right``.
        right: int64 (pairs,), rows of the gallery that are right; at least one for each query.
    """

    vectors: VectorSource
    ids: Int64
    offsets: Int64
    right: Int64

    def __post_init__(self) -> None:
        if len(self.ids) and np.diff(self.offsets).min() < 1:
            raise InternalError("a query without a right answer cannot be ranked")

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> Queries:
        """Queries ``start`` to ``stop``."""
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
        images: rows of the ``images`` table.
        captions: rows of the ``captions`` table; None where there are none.
        image_of_caption: int64 (captions,), each caption's row in ``images``.
    """

    images: Items
    captions: Items | None
    image_of_caption: Int64


def load_corpus(snapshot: Snapshot) -> Corpus:
    """Read the tables of a version that has been indexed.

    Memory: the key columns while they are looked up (64 bytes a row), then 32 bytes a row.

    Raises:
        NoInputError: the version has not been indexed.
        DataError: a row has no vector, a caption no image, or an object is damaged.
    """

    def items(side: Modality) -> Items:
        return Items(snapshot.vectors(side), snapshot.row_ids(side))

    images = items(Modality.IMAGE)
    if Modality.TEXT not in snapshot.manifest.indexes:
        return Corpus(images, None, np.empty(0, dtype=np.int64))
    known = snapshot.table("images", ["image_id"])["image_id"]
    owners = snapshot.table("captions", ["image_id"])["image_id"]
    owned = positions(owners, known, "captions: a caption belongs to no image")
    return Corpus(images, items(Modality.TEXT), owned)


def sample(n: int, wanted: int, seed: int) -> Int64:
    """``wanted`` of the numbers 0..n-1, ascending, seeded; all of them where n is not larger."""
    if n <= wanted:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, wanted, replace=False))


def caption_queries(captions: Items, image_of_caption: Int64, rows: Int64) -> Queries:
    """Text to image: each of these captions asks for its own image."""
    return Queries(
        vectors=captions.vectors,
        ids=captions.id_of_row[rows],
        offsets=np.arange(len(rows) + 1),
        right=image_of_caption[rows],
    )


def image_queries(images: Items, image_of_caption: Int64, rows: Int64) -> Queries:
    """Image to text: each of these images, which have captions, asks for any one of its own."""
    grouped = np.argsort(image_of_caption, kind="stable").astype(np.int64)
    counts = np.bincount(image_of_caption, minlength=len(images.id_of_row))
    starts = (np.cumsum(counts) - counts)[rows]
    sizes = counts[rows]
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    # For each image its slice of ``grouped``, all slices laid end to end.
    inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
    return Queries(
        vectors=images.vectors,
        ids=images.id_of_row[rows],
        offsets=offsets,
        right=grouped[np.repeat(starts, sizes) + inside],
    )
