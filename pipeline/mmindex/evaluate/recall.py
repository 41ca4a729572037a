"""Recall@K, median rank and index recall: pure, exact, streamed.

Recall is hit@k, as in LAION's CLIP_benchmark (https://github.com/LAION-AI/CLIP_benchmark,
``metrics/zeroshot_retrieval.py``): every image row and every caption row is a separate item, even
if two have the same bytes or text; a query counts 1 if at least one of its correct items is among
the first k, otherwise 0; the mean is over queries.

**Ties.** Among items with equal scores, the lower row comes first. CLIP_benchmark leaves ties to
``torch.topk``, which guarantees no order. The order of rows does not depend on the query, so a
corpus of duplicates, or a model that returns the same vector for everything, has the recall of
random answers.

**Exactness.** Stored vectors are float16. A product of two is a multiple of 2**-48, and partial
sums of unit vectors stay below 2, so float64 (53 bits) represents every partial sum exactly: a
pair always has the same score, for any block shape and number of threads. Ranks are therefore
reproducible and independent of the block sizes below.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmindex.evaluate.corpus import Items, Queries, VectorSource

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# One tile of scores has 2048 x 2048 float64 (32 MiB): large enough for full BLAS speed (114 GFLOP/s
# on two cores), small enough that a tile, its masks and both operands stay below 200 MB.
_QUERY_ROWS = 2048
_GALLERY_ROWS = 2048
# Pairs of (query, correct item) per step: 4096 x 1024 dimensions x 2 operands are 64 MiB.
_PAIR_ROWS = 4096

UNRANKED = 0
"""The rank of a query if none of its correct items was found."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Recall in percent (0 to 100) and the median rank (1 is best) over ``queries`` queries.

    ``medr`` is None if the answer of the median query was not found within the search depth.
    """

    r1: float
    r5: float
    r10: float
    medr: float | None
    queries: int


def summarize(ranks: Int64) -> Recall | None:
    """Return recall@1, 5, 10 and median rank of int64 (q,) ranks; None without queries.

    The median of an even number of ranks is the mean of the middle two, as in ``numpy.median``.
    """
    if not len(ranks):
        return None
    known = np.where(ranks == UNRANKED, np.inf, ranks)
    r1, r5, r10 = (100.0 * float(np.count_nonzero(known <= k)) / len(ranks) for k in (1, 5, 10))
    middle = np.sort(known)[[(len(ranks) - 1) // 2, len(ranks) // 2]]
    medr = float(middle.mean()) if np.isfinite(middle).all() else None
    return Recall(r1=r1, r5=r5, r10=r10, medr=medr, queries=len(ranks))


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of a full scan for each query.

    Attributes:
        ranks: int64 (q,), the rank of the best correct row; 1 is first.
        nearest: float64 (q, depth), scores of the nearest vectors, descending; -inf if the gallery
            has fewer. These are vectors, not rows: an index contains each vector once.
        best: float64 (q,), the score of the best correct row.
        best_row: int64 (q,), that row.
    """

    ranks: Int64
    nearest: Float64
    best: Float64
    best_row: Int64


def exact_scan(queries: Queries, gallery: Items, depth: int) -> Scan:
    """Score every query against the whole gallery.

    Work: ``len(queries) * gallery.vectors.n`` scores; memory does not grow with either.
    """
    ranks = np.empty(len(queries), dtype=np.int64)
    nearest = np.empty((len(queries), depth))
    best = np.empty(len(queries))
    best_row = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), _QUERY_ROWS):
        part = slice(start, min(start + _QUERY_ROWS, len(queries)))
        block = _scan_block(queries.part(part.start, part.stop), gallery, depth)
        ranks[part], nearest[part] = block.ranks, block.nearest
        best[part], best_row[part] = block.best, block.best_row
    return Scan(ranks, nearest, best, best_row)


def _scan_block(queries: Queries, gallery: Items, depth: int) -> Scan:
    best, best_row = _best_right(queries, gallery)
    matrix = queries.vectors.take(queries.ids).astype(np.float64)
    rows_of_id = gallery.rows_of_id
    ahead = np.zeros(len(queries), dtype=np.int64)
    nearest = np.full((len(queries), depth), -np.inf)
    for ids, block in gallery.vectors.blocks(_GALLERY_ROWS):
        scores = matrix @ block.astype(np.float64).T
        weights = rows_of_id[ids]
        ahead += _count(scores > best[:, None], weights)
        # Usually there is one tie per query, the correct item itself. Searching a flat array is
        # 30 times as fast as np.nonzero.
        tied_query, tied_id = np.divmod(np.flatnonzero(scores == best[:, None]), len(block))
        lower = gallery.earlier(ids[tied_id], best_row[tied_query])
        ahead += np.bincount(tied_query, weights=lower, minlength=len(queries)).astype(np.int64)
        nearest = _largest(np.concatenate((nearest, _largest(scores, depth)), axis=1), depth)
    return Scan(ahead + 1, -np.sort(-nearest, axis=1), best, best_row)


def _largest(scores: Float64, depth: int) -> Float64:
    """Return the ``depth`` largest of each row, unordered; all if there are no more."""
    if scores.shape[1] <= depth:
        return scores
    largest: Float64 = np.partition(scores, -depth, axis=1)[:, -depth:]
    return largest


def _count(mask: NDArray[np.bool_], weights: Int64) -> Int64:
    """Return the sum of ``weights`` where ``mask`` (q, m) is true, for each query: int64 (q,)."""
    if (weights == 1).all():
        counts: Int64 = np.count_nonzero(mask, axis=1)
        return counts
    # float64 is exact up to 2**53, and here ten times as fast as integers.
    sums: Float64 = mask.astype(np.float64) @ weights.astype(np.float64)
    return sums.astype(np.int64)


def _best_right(queries: Queries, gallery: Items) -> tuple[Float64, Int64]:
    """Return the best correct item of each query: its score, float64 (q,), and row, int64 (q,)."""
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
    """Return the rank of the best correct item of each query in the answers of a searcher.

    Args:
        answers: int64 (q, k), ids best first; -1 for no answer.
        queries: the q queries.
        gallery: the gallery; an id represents all its rows, in row order.

    Returns:
        int64 (q,), :data:`UNRANKED` if no correct item is among the answers.
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


# Searchers compute scores in float32 and cannot distinguish candidates closer than this.
_SCORE_TOLERANCE = 1e-6


def index_recall(found: Float64, truth: Float64) -> float | None:
    """Return the share of the true nearest neighbours that a searcher found, in percent.

    It is counted by score, not by id, so any of several equally near neighbours counts.

    Args:
        found: float64 (q, k), true scores of the answers; -inf for no answer.
        truth: float64 (q, k), scores of the true k nearest, descending; -inf beyond the corpus.

    Returns:
        the mean over queries, 0 to 100; None if there are no queries or there is nothing to find.
    """
    wanted = np.isfinite(truth)
    total = int(np.count_nonzero(wanted))
    if total == 0:
        return None
    worst = np.where(wanted, truth, np.inf).min(axis=1)
    good = np.count_nonzero(found >= worst[:, None] - _SCORE_TOLERANCE, axis=1)
    return 100.0 * float(np.minimum(good, np.count_nonzero(wanted, axis=1)).sum()) / total


def scores_of(queries: Float64, ids: Int64, vectors: VectorSource) -> Float64:
    """Return the true scores of answers: float64 (q, k); -inf if the id is -1.

    Args:
        queries: float64 (q, dim).
        ids: int64 (q, k).
        vectors: the vectors of the ids.
    """
    scores = np.full(ids.shape, -np.inf)
    step = max(1, _PAIR_ROWS // max(1, ids.shape[1]))
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        owner, column = np.nonzero(part >= 0)
        rows = vectors.take(part[owner, column]).astype(np.float64)
        scores[start + owner, column] = np.einsum("ij,ij->i", queries[start + owner], rows)
    return scores
