"""Recall@K, median rank and index recall: pure, exact, streamed.

What is counted is hit@k, as LAION's CLIP_benchmark does
(https://github.com/LAION-AI/CLIP_benchmark, ``metrics/zeroshot_retrieval.py``): every image row and
every caption row is an item of its own, also when two hold the same bytes or text; a query counts
1 when at least one of its right items is among the first k, else 0; the mean is over queries.

**Ties.** Of items with equal score the one with the lower row comes first. CLIP_benchmark leaves
ties to ``torch.topk``, which promises no order. Row order knows nothing about the query, so of n
equal items each is found first for one query in n: a corpus of duplicates, or a model that gives
one vector for everything, gets the score of chance, neither 100 % nor 0 %.

**Exactness.** Stored vectors are float16. A product of two is a multiple of 2**-48, and partial
sums of unit vectors stay below 2, so float64 (53 bits) holds every partial sum exactly: the same
pair gets the same score, to the last bit, in any block shape, on any number of threads. Ranks are
therefore reproducible and independent of the block sizes below.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmindex.errors import InternalError

Float16 = NDArray[np.float16]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# One tile of scores is 2048 x 2048 float64 = 32 MiB: large enough for full BLAS speed (114 GFLOP/s
# on two cores), small enough that a tile, its masks and both operands stay below 200 MB.
_QUERY_ROWS = 2048
_GALLERY_ROWS = 2048
# Pairs of (query, right item) scored at once: 4096 x 1024 dimensions x 2 operands = 64 MiB.
_PAIR_ROWS = 4096

UNRANKED = 0
"""The rank of a query none of whose right items was found."""


class VectorSource(Protocol):
    """Vectors by id; :class:`mmindex.store.vectors.Vectors` is one.

    ``take(ids)`` gives float16 (len(ids), dim), ``blocks(rows)`` streams ``(first id, float16
    (m <= rows, dim))`` in id order.
    """

    n: int
    dim: int

    def take(self, ids: Int64) -> Float16: ...  # noqa: D102 - said above

    def blocks(self, rows: int) -> Iterator[tuple[int, Float16]]: ...  # noqa: D102


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
class Recall:
    """Recall in percent (0 to 100) and the median rank (1 is best) over ``queries`` queries.

    ``medr`` is None when the median query's answer was not found within the depth searched.
    """

    r1: float
    r5: float
    r10: float
    medr: float | None
    queries: int


def summarize(ranks: Int64) -> Recall | None:
    """Recall@1, 5, 10 and median rank of int64 (q,) ranks; None where there is no query.

    The median of an even number of ranks is the mean of the middle two, as ``numpy.median``.
    """
    if not len(ranks):
        return None
    known = np.where(ranks == UNRANKED, np.inf, ranks)
    r1, r5, r10 = (100.0 * float(np.count_nonzero(known <= k)) / len(ranks) for k in (1, 5, 10))
    middle = np.sort(known)[[(len(ranks) - 1) // 2, len(ranks) // 2]]
    medr = float(middle.mean()) if np.isfinite(middle).all() else None
    return Recall(r1=r1, r5=r5, r10=r10, medr=medr, queries=len(ranks))


def exact_ranks(queries: Queries, gallery: Items) -> Int64:
    """Rank of each query's best right item in a full scan: int64 (q,), 1 is first.

    Work: ``len(queries) * gallery.vectors.n`` scores; memory does not grow with either.
    """
    ranks = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), _QUERY_ROWS):
        stop = min(start + _QUERY_ROWS, len(queries))
        ranks[start:stop] = _ranks_of_block(queries.part(start, stop), gallery)
    return ranks


def _ranks_of_block(queries: Queries, gallery: Items) -> Int64:
    best, best_row = _best_right(queries, gallery)
    matrix = queries.vectors.take(queries.ids).astype(np.float64)
    rows_of_id = gallery.rows_of_id
    ahead = np.zeros(len(queries), dtype=np.int64)
    for first, block in gallery.vectors.blocks(_GALLERY_ROWS):
        scores = matrix @ block.astype(np.float64).T
        weights = rows_of_id[first : first + len(block)]
        ahead += _count(scores > best[:, None], weights)
        # Usually one tie a query: the right item itself.
        tied_query, tied_id = np.divmod(
            np.flatnonzero(scores == best[:, None]),
            len(block),  # 30 x as fast as np.nonzero
        )
        lower = gallery.earlier(tied_id + first, best_row[tied_query])
        ahead += np.bincount(tied_query, weights=lower, minlength=len(queries)).astype(np.int64)
    return ahead + 1


def _count(mask: NDArray[np.bool_], weights: Int64) -> Int64:
    """Sum of ``weights`` where ``mask`` (q, m) holds, for each query: int64 (q,)."""
    if (weights == 1).all():
        counts: Int64 = np.count_nonzero(mask, axis=1)
        return counts
    # float64 counts exactly up to 2**53, and is ten times faster here than integers.
    sums: Float64 = mask.astype(np.float64) @ weights.astype(np.float64)
    return sums.astype(np.int64)


def _best_right(queries: Queries, gallery: Items) -> tuple[Float64, Int64]:
    """Each query's best right item: its score, float64 (q,), and its row, int64 (q,)."""
    owner = np.repeat(np.arange(len(queries)), np.diff(queries.offsets))
    scores = np.empty(len(owner), dtype=np.float64)
    for start in range(0, len(owner), _PAIR_ROWS):
        part = slice(start, start + _PAIR_ROWS)
        left = queries.vectors.take(queries.ids[owner[part]]).astype(np.float64)
        right = gallery.vectors.take(gallery.id_of_row[queries.right[part]]).astype(np.float64)
        scores[part] = np.einsum("ij,ij->i", left, right)
    starts = queries.offsets[:-1]
    best = np.maximum.reduceat(scores, starts)
    tied_rows = np.where(scores == best[owner], queries.right, np.iinfo(np.int64).max)
    return best, np.minimum.reduceat(tied_rows, starts)


def ranks_in_answers(answers: Int64, queries: Queries, gallery: Items) -> Int64:
    """Rank of each query's best right item in the answers that a searcher gave.

    Args:
        answers: int64 (q, k), ids best first; -1 where there is none.
        queries: the q queries.
        gallery: what was searched; an answered id stands for all its rows, in row order.

    Returns:
        int64 (q,), :data:`UNRANKED` where no right item is among the answers.
    """
    sizes = np.where(answers >= 0, gallery.rows_of_id[answers], 0)
    ahead = np.cumsum(sizes, axis=1) - sizes
    owner = np.repeat(np.arange(len(queries)), np.diff(queries.offsets))
    ids = gallery.id_of_row[queries.right]
    matches = answers[owner] == ids[:, None]
    column = matches.argmax(axis=1)
    rank = ahead[owner, column] + gallery.earlier(ids, queries.right) + 1
    unknown = np.iinfo(np.int64).max
    best = np.minimum.reduceat(np.where(matches.any(axis=1), rank, unknown), queries.offsets[:-1])
    ranks: Int64 = np.where(best == unknown, UNRANKED, best)
    return ranks


# Searchers score in float32: two candidates closer than this are one to them.
_SCORE_TOLERANCE = 1e-6


def index_recall(found: Float64, truth: Float64) -> float | None:
    """Share of the true nearest neighbours that a searcher found, in percent.

    Counted by score, not by id: among equally near neighbours any will do.

    Args:
        found: float64 (q, k), true scores of the answers; -inf where there is none.
        truth: float64 (q, k), scores of the true k nearest, descending; -inf beyond the corpus.

    Returns:
        the mean over queries, 0 to 100; None where there is no query or nothing to find.
    """
    wanted = np.isfinite(truth)
    total = int(np.count_nonzero(wanted))
    if total == 0:
        return None
    worst = np.where(wanted, truth, np.inf).min(axis=1)
    good = np.count_nonzero(found >= worst[:, None] - _SCORE_TOLERANCE, axis=1)
    return 100.0 * float(np.minimum(good, np.count_nonzero(wanted, axis=1)).sum()) / total


def scores_of(queries: Float64, ids: Int64, vectors: VectorSource) -> Float64:
    """True scores of answers: float64 (q, k); -inf where the id is -1.

    Args:
        queries: float64 (q, dim).
        ids: int64 (q, k).
        vectors: the vectors that the ids name.
    """
    scores = np.full(ids.shape, -np.inf)
    step = max(1, _PAIR_ROWS // max(1, ids.shape[1]))
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        owner, column = np.nonzero(part >= 0)
        rows = vectors.take(part[owner, column]).astype(np.float64)
        scores[start + owner, column] = np.einsum("ij,ij->i", queries[start + owner], rows)
    return scores
