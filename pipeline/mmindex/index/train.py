"""Train and fill an index, with limited memory and reproducibly.

The same vectors, seed and thread count result in the same bytes. With another thread count, sums
are added in another order, and k-means differs in the last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import UsageError
from mmindex.index.exact import block_rows, faiss_settings, widen
from mmindex.index.faissio import coded_centres, ivf_part
from mmindex.index.gpu import to_cpu, to_gpu_for_build
from mmindex.index.plan import KINDS, IndexPlan
from mmindex.store.vectors import Vectors

# OPQ: faiss's 50 rounds take minutes, and recall changes by less than 0.2 % after 8 rounds.
_OPQ_ROUNDS = 8
_OPQ_ROWS = 32_768
# With many lists, k-means gets half of faiss's 10 rounds, which costs 0.3 % of recall for the same
# probes. Below this number of distances per round, all 10 rounds take at most two seconds.
_LIST_ROUNDS = 5
_MANY_DISTANCES = 100_000_000
# Centres with codes: the number of centres that are compared exactly when a vector is assigned to a
# list (99 % of vectors get the nearest one), and the number of rows that train the codes.
_CENTRES_A_VECTOR = 8
_CENTRE_CODE_ROWS = 8_192
# PCA: 32,768 rows are 64 for each of 512 dimensions.
_PCA_ROWS = 32_768
# Above 1,000 rows per dimension, faiss's PCA uses a random part, which would not be symmetric. The
# limit here is half of that, because every row is used twice.
_PCA_ROWS_PER_DIM = 500
# Multiplications per round of k-means that take one thread about 0.1 s.
_ALONE_WORK = 2_000_000_000


def sample_rows(n: int, rows: int, seed: int) -> NDArray[np.int64]:
    """Return distinct random row numbers below ``n``, ascending: int64 (rows,).

    The first rows are not used, because a corpus often starts with one kind of image.
    """
    if rows >= n:
        return np.arange(n, dtype=np.int64)
    chosen = np.random.default_rng(seed).choice(n, rows, replace=False, shuffle=False)
    return np.sort(chosen).astype(np.int64)


def take_wide(vectors: Vectors, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return these rows as float32 (len(rows), dim), converted in parts."""
    out = np.empty((len(rows), vectors.dim), dtype=np.float32)
    step = block_rows(vectors.dim)
    for start in range(0, len(rows), step):
        out[start : start + step] = widen(vectors.take(rows[start : start + step]))
        vectors.let_go()
    return out


def build(
    plan: IndexPlan,
    vectors: Vectors,
    rows: NDArray[np.int64] | None,
    seed: int,
    threads: int,
    fill: Callable[[Any], bool] | None = None,
) -> Any:
    """Train an index on a random sample and add vectors with ids 0, 1, ...

    Args:
        plan: what to build; not exact.
        vectors: finite, unit-length rows.
        rows: add only these rows (ascending; ids from 0), for a trial; None: all.
        seed: the seed of the sample and of k-means.
        threads: for faiss.
        fill: adds all vectors to a trained CPU index in another way; returns False if it cannot.

    Returns:
        a CPU faiss index for inner products.

    Raises:
        UsageError: faiss does not accept the factory string for these vectors.
    """
    with faiss_settings(threads, vectors.dim):
        index = _empty(plan)
        pool = vectors.n if rows is None else len(rows)
        chosen = sample_rows(pool, plan.training_rows, seed)
        sample = take_wide(vectors, chosen if rows is None else rows[chosen])
        try:
            keep_alive = _configure(index, sample, seed)
            if plan.gpu:
                index = to_gpu_for_build(index, plan.m)
            _train(index, plan, sample, threads)
            del sample, keep_alive
            faiss.omp_set_num_threads(threads)
            if plan.gpu or fill is None or not fill(index):
                _add(index, vectors, rows)
        except RuntimeError as error:
            raise _refused(plan, error) from error
        return to_cpu(index) if plan.gpu else index


def _empty(plan: IndexPlan) -> Any:
    try:
        # Without the metric, faiss uses L2.
        return faiss.index_factory(plan.dim, plan.factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise _refused(plan, error) from error


def _refused(plan: IndexPlan, error: RuntimeError) -> UsageError:
    said = str(error).replace("\n", " ").rpartition(": ")[2]
    if plan.gpu:  # also if the GPU has no memory left, or its driver does not fit
        return UsageError(
            f"faiss cannot build {plan.factory!r} for {plan.n:,} x {plan.dim} vectors on a GPU:"
            f" {said}",
            "set index.gpu to never",
        )
    return UsageError(
        f"faiss rejects {plan.factory!r} for {plan.n:,} x {plan.dim} vectors: {said}",
        f"use one of {', '.join(KINDS)}, or a factory string that fits",
    )


def _configure(index: Any, sample: NDArray[np.float32], seed: int) -> list[Any]:
    """Seed every k-means, turn off faiss's size warnings, and train or set the rotation.

    Returns:
        objects that faiss refers to without owning them: keep them until training is done.
    """
    keep: list[Any] = []
    inner = index
    if isinstance(index, faiss.IndexPreTransform):
        for number in range(index.chain.size()):
            transform = faiss.downcast_VectorTransform(index.chain.at(number))
            keep += _rotation(transform, sample, _bits(index), seed)
        inner = faiss.downcast_index(index.index)
    for owner in (inner, getattr(inner, "pq", None)):
        _seed_clustering(getattr(owner, "cp", None), seed)
    if ivf_part(index) is not None and len(sample) * inner.nlist > _MANY_DISTANCES:
        inner.cp.niter = _LIST_ROUNDS
    if (centres := coded_centres(index)) is not None:
        centres.k_factor = _CENTRES_A_VECTOR
        _seed_clustering(faiss.downcast_index(centres.base_index).pq.cp, seed)
    if hasattr(inner, "do_polysemous_training"):
        # This would take minutes for a filter that no search uses; "np" in a factory string.
        inner.do_polysemous_training = False
    return keep


def _seed_clustering(parameters: Any | None, seed: int) -> None:
    if parameters is not None:
        parameters.seed = seed % (1 << 31)
        # The plan ensures that there are enough; faiss would print a line for each k-means.
        parameters.min_points_per_centroid = 1


def _train(index: Any, plan: IndexPlan, sample: NDArray[np.float32], threads: int) -> None:
    """Train rotation, lists and codes, each with a suitable number of threads.

    A 4-bit sub-quantizer has 16 centroids: distributing so little work takes longer than doing it
    (128 of them: 0.9 s with one thread; with two, 1.0 s on idle cores and 14 s on busy ones).
    """
    ivf = ivf_part(index)
    if plan.gpu or plan.bits != 4 or ivf is None:
        index.train(sample)
        return
    if isinstance(index, faiss.IndexPreTransform):
        for number in range(index.chain.size()):
            transform = faiss.downcast_VectorTransform(index.chain.at(number))
            if not transform.is_trained:
                transform.train(sample)
            sample = transform.apply(sample)
    if (centres := coded_centres(index)) is not None:
        faiss.omp_set_num_threads(1)
        centres.train(sample[:: max(1, len(sample) // _CENTRE_CODE_ROWS)])
        # During k-means, all centres are compared exactly, as if they had no codes.
        exact = faiss.IndexFlatIP(ivf.d)
        ivf.clustering_index = exact
    work = len(sample) * plan.nlist * sample.shape[1]
    faiss.omp_set_num_threads(threads if work > _ALONE_WORK else 1)
    ivf.train_q1(len(sample), faiss.swig_ptr(sample), False, faiss.METRIC_INNER_PRODUCT)
    if centres is not None:
        ivf.clustering_index = None
    faiss.omp_set_num_threads(1)
    ivf.train(sample)  # the lists are already trained, so this trains only the codes
    index.is_trained = True


def _rotation(transform: Any, sample: NDArray[np.float32], bits: int, seed: int) -> list[Any]:
    if isinstance(transform, faiss.PCAMatrix) and transform.d_in == sample.shape[1]:
        # PCA subtracts the mean, which changes the order of inner products (not of L2 distances).
        # Rows together with their negatives have mean zero, so the result is a pure rotation.
        step = -(-len(sample) // min(_PCA_ROWS, _PCA_ROWS_PER_DIM * transform.d_in))
        part = sample[::step]
        with faiss_settings(1, transform.d_in):  # too little work for threads; see _train
            transform.train(np.concatenate([part, -part]))
    if isinstance(transform, faiss.OPQMatrix):
        transform.niter = _OPQ_ROUNDS
        transform.max_train_points = _OPQ_ROWS
        # By default, OPQ would train an 8-bit quantizer for a 4-bit index: ten times the work.
        quantizer = faiss.ProductQuantizer(transform.d_out, transform.M, bits)
        _seed_clustering(quantizer.cp, seed)
        transform.pq = quantizer
        return [quantizer]
    return []


def _bits(index: Any) -> int:
    ivf = ivf_part(index)
    quantizer = getattr(ivf, "pq", None)
    return 8 if quantizer is None else int(quantizer.nbits)


def blocks_of(
    vectors: Vectors, rows: NDArray[np.int64] | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """Yield all current vectors, or some rows with new ids 0, 1, ..., as float16 blocks."""
    step = block_rows(vectors.dim)
    if rows is None:
        yield from vectors.blocks(step)
        return
    for start in range(0, len(rows), step):
        part = vectors.take(rows[start : start + step])
        vectors.let_go()
        yield np.arange(start, start + len(part), dtype=np.int64), part


def _add(index: Any, vectors: Vectors, rows: NDArray[np.int64] | None) -> None:
    takes_ids = ivf_part(index) is not None or isinstance(index, faiss.IndexIDMap)
    for ids, block in blocks_of(vectors, rows):
        if takes_ids:
            index.add_with_ids(widen(block), ids)
        else:
            index.add(widen(block))  # faiss numbers them 0, 1, ...
