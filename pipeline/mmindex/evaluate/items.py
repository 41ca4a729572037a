"""Rows, the vectors that they share, and queries with their right answers: plain arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import InternalError

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
