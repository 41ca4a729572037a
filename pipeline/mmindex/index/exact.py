"""Exact search over float16 vectors, and the scoring of all searches.

Scores are float32 inner products of float16 rows with float32 queries. The score of a pair does not
depend on other queries, and equal scores are ordered by lower id first, so answers do not depend on
batches, blocks or threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import faiss
import numpy as np
from numpy.typing import NDArray

from mmindex.core.system import usable_cores

Float16 = NDArray[np.float16]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_SLACK = 16  # additional candidates per block, to detect ties with the last one
_SCORE_ERROR = 1e-5  # bound on the rounding of float32 inner products of unit vectors
_GATHER_ELEMENTS = 1 << 18  # 1 MiB of float32, so that gathered rows stay in the processor's cache
_QUERIES_A_THREAD = 32  # with fewer, re-ranking ends before a second thread has started
_BLOCK_BYTES = 64 << 20  # float32 rows in memory during a full scan


def block_rows(dim: int) -> int:
    """Return the rows per block of a full scan; a block takes 64 MiB in float32."""
    return max(1, _BLOCK_BYTES // (4 * dim))


def thread_count(threads: int | None) -> int:
    """Return ``threads``, or the number of cores for this process."""
    return threads if threads is not None else usable_cores()


@dataclass(slots=True)
class _Threshold:
    """Sets faiss's BLAS threshold, which is global, while several threads search."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    before: int = 0


_threshold = _Threshold()


@contextmanager
def faiss_settings(threads: int, dim: int) -> Iterator[None]:
    """Set faiss's thread count and BLAS threshold during the block, then restore them.

    faiss 1.15 compares queries x dim with the threshold before it uses BLAS. Its default makes 16
    to 249 queries eight times slower than necessary; 4 x dim uses the scalar code only for few
    queries, for which it is faster.
    """
    threads_before = faiss.omp_get_max_threads()  # OpenMP has one value per calling thread
    faiss.omp_set_num_threads(threads)
    with _threshold.lock:
        if not _threshold.users:
            _threshold.before = faiss.cvar.distance_compute_blas_threshold
        _threshold.users += 1
        faiss.cvar.distance_compute_blas_threshold = 4 * dim
    try:
        yield
    finally:
        with _threshold.lock:
            _threshold.users -= 1
            if not _threshold.users:  # the last thread restores it
                faiss.cvar.distance_compute_blas_threshold = _threshold.before
        faiss.omp_set_num_threads(threads_before)


def widen(rows: Float16) -> Float32:
    """Convert finite float16 values to float32 exactly; 2.5 times as fast as ``astype``.

    The 16 bits are shifted to the sign and mantissa of float32, and the exponent bias is corrected
    by a multiplication by 2**112 (exact, for subnormal values too).
    """
    bits = np.ascontiguousarray(rows).view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(-0x70000001)  # 0x8FFFFFFF removes the copies of the sign above the exponent
    floats: Float32 = bits.view(np.float32)
    floats *= np.float32(2.0**112)
    return floats


def score(queries: Float32, rows: Float32) -> Float32:
    """Return inner products: float32 (q, c) of float32 (q, dim) and float32 (q, c, dim).

    Each row is summed separately, so the score of a pair does not depend on other rows, as it would
    with a matrix product.
    """
    scores: Float32 = np.einsum("qcd,qd->qc", rows, queries)
    return scores


def rerank(
    take: Callable[[Int64], Float16],
    queries: Float32,
    candidates: Int64,
    k: int,
    threads: int = 1,
) -> tuple[Float32, Int64]:
    """Score candidates exactly and keep the best.

    Args:
        take: returns the float16 (m, dim) rows of m ids.
        queries: float32 (q, dim).
        candidates: int64 (q, c) ids, without duplicates in a row; -1 for no candidate.
        k: the number to keep.
        threads: number of threads; ``take`` must be thread-safe.

    Returns:
        float32 (q, k) scores and int64 (q, k) ids, best first, equal scores by lower id;
        missing ones are -inf and -1.
    """
    if threads > 1 and len(queries) >= threads * _QUERIES_A_THREAD:
        parts = np.array_split(np.arange(len(queries)), threads)
        with ThreadPoolExecutor(threads) as pool:
            done = list(pool.map(lambda p: rerank(take, queries[p], candidates[p], k), parts))
        return np.concatenate([one[0] for one in done]), np.concatenate([one[1] for one in done])
    # In the order of ids: neighbours on disk are read together, and a stable sort breaks ties.
    candidates = np.sort(candidates, axis=1)
    count, width = candidates.shape
    if count == 1 and width * queries.shape[1] <= _GATHER_ELEMENTS:
        return _rerank_one(take, queries[0], candidates[0], k)
    scores = np.full((count, width), -np.inf, dtype=np.float32)
    room = max(1, _GATHER_ELEMENTS // queries.shape[1])
    columns = min(width, room)
    step = max(1, room // max(1, columns))
    for start in range(0, count, step):
        for left in range(0, width, columns):
            here = (slice(start, start + step), slice(left, left + columns))
            part = candidates[here]
            there = part >= 0
            if there.any():
                rows = widen(take(np.where(there, part, part[there][0]).ravel()))
                found = score(queries[here[0]], rows.reshape(*part.shape, -1))
                scores[here][there] = found[there]
    return best(scores, candidates, k)


def _rerank_one(
    take: Callable[[Int64], Float16], query: Float32, candidates: Int64, k: int
) -> tuple[Float32, Int64]:
    """Do the same as :func:`rerank` for one query and a few ascending candidates.

    This takes fewer NumPy calls. A call takes about a microsecond, so the calls of :func:`rerank`
    would take longer than the arithmetic.
    """
    ids = candidates[candidates.searchsorted(0) :]
    scores = np.full((1, k), -np.inf, dtype=np.float32)
    found = np.full((1, k), -1, dtype=np.int64)
    if len(ids):
        products = np.einsum("cd,d->c", widen(take(ids)), query)
        order = (-products).argsort(kind="stable")[:k]
        scores[0, : len(order)] = products[order]
        found[0, : len(order)] = ids[order]
    return scores, found


def best(scores: Float32, ids: Int64, k: int) -> tuple[Float32, Int64]:
    """Return the k best of each row; ids of equal scores must ascend; pads with -inf, -1."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    top_scores = np.take_along_axis(scores, order, axis=1)
    top_ids = np.take_along_axis(ids, order, axis=1)
    if (missing := k - order.shape[1]) > 0:
        pad = ((0, 0), (0, missing))
        top_scores = np.pad(top_scores, pad, constant_values=-np.inf)
        top_ids = np.pad(top_ids, pad, constant_values=-1)
    return top_scores, top_ids


def exact_search(
    blocks: Iterable[tuple[Int64, Float16]], queries: Float32, k: int, threads: int | None = None
) -> tuple[Float32, Int64]:
    """Find the k vectors with the largest inner product in a full scan with limited memory.

    Args:
        blocks: (int64 (m,) ids, float16 (m, dim)), ids ascending through all; finite values.
        queries: float32 (q, dim), C order, unit length.
        k: the number of vectors, at least 1.
        threads: for faiss; None: one per core.

    Returns:
        float32 (q, k) scores and int64 (q, k) ids, best first; equal scores by lower id;
        -inf and -1 if there are fewer than k vectors.
    """
    count, dim = queries.shape
    scores = np.full((count, k), -np.inf, dtype=np.float32)
    ids = np.full((count, k), -1, dtype=np.int64)
    with faiss_settings(thread_count(threads), dim):
        for numbers, rows in blocks:
            if len(rows) and count:
                scores, ids = _merge_block(numbers, rows, queries, (scores, ids))
    return scores, ids


def _merge_block(
    numbers: Int64, rows: Float16, queries: Float32, pool: tuple[Float32, Int64]
) -> tuple[Float32, Int64]:
    """Return the best of ``pool`` and a block whose ids are all above those in the pool."""
    k = pool[0].shape[1]
    wide = widen(rows)
    wanted = min(len(rows), k + _SLACK)
    rough, found = faiss.knn(queries, wide, wanted, metric=faiss.METRIC_INNER_PRODUCT)
    scores, found = rerank(rows.__getitem__, queries, found, wanted)
    merged = best(
        np.concatenate([pool[0], scores], axis=1),
        np.concatenate([pool[1], numbers[found]], axis=1),
        k,
    )
    if wanted == len(rows):
        return merged
    # If a row that faiss left out can tie with the last one kept, every row is scored.
    unsure = rough[:, -1] >= merged[0][:, -1] - _SCORE_ERROR
    for number in np.flatnonzero(unsure).tolist():
        every = score(queries[number : number + 1], wide[np.newaxis])
        merged[0][number], merged[1][number] = best_row(
            np.concatenate([pool[0][number], every[0]]),
            np.concatenate([pool[1][number], numbers]),
            k,
        )
    return merged


def best_row(scores: Float32, ids: Int64, k: int) -> tuple[Float32, Int64]:
    """Return :func:`best` for one row."""
    top_scores, top_ids = best(scores[np.newaxis], ids[np.newaxis], k)
    return top_scores[0], top_ids[0]
