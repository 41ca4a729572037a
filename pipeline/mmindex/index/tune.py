"""Choose nprobe and the re-ranking depth for a recall target by measuring recall.

Re-ranking is exact, so the recall at 10 of a setting is the share of the true ten among its
candidates, and the candidates for a smaller depth are a prefix of those for a larger one: one
search for each nprobe measures every depth. Costs come from a fixed model, not from a clock, so the
same input always results in the same setting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import InternalError
from mmindex.index.exact import exact_search, faiss_settings
from mmindex.index.faissio import find_candidates
from mmindex.index.gpu import MAX_K
from mmindex.index.plan import IndexPlan
from mmindex.index.train import blocks_of, sample_rows, take_wide
from mmindex.store.vectors import Vectors

RECALL_AT = 10
TUNING_QUERIES = 512  # recall at 10 of 512 queries has a standard error below 0.5 %
_DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
# Milliseconds on one core, fitted to 200,000 x 512: for a list's code, for a re-ranked vector.
_CODE_MS = {4: 5e-6, 8: 4e-5, 32: 1e-4}
_RERANK_MS_PER_DIM = 6e-7
_NEVER = np.iinfo(np.int64).max // 2  # position of a neighbour that is not among the candidates

Point = tuple[int, int, float, float]
Blocks = Iterable[tuple[NDArray[np.int64], NDArray[np.float16]]]


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Queries with their true nearest neighbours.

    Attributes:
        queries: float32 (q, dim).
        truth: int64 (q, t) ids of the true nearest, t <= 10.
        own: int64 (q,) ids of the queries if they are in the corpus, which do not count as answers;
            None for other queries.
        share: the part of the corpus in the index. In a sample, neighbours are farther apart and
            codes seem more precise than they are, so fewer candidates and true neighbours are used:
            those that would be the same share of the corpus.
        fidelity: the part of the true ten that re-ranking keeps if all are candidates, see
            :func:`fidelity_of`.
    """

    queries: NDArray[np.float32]
    truth: NDArray[np.int64]
    own: NDArray[np.int64] | None
    share: float = 1.0
    fidelity: float = 1.0

    def depth(self, k_factor: int) -> int:
        """Return the number of candidates for the hits."""
        wanted = int(self.truth.shape[1])
        return max(wanted, round(candidate_count(RECALL_AT, k_factor) * self.share))


@dataclass(frozen=True, slots=True)
class Tuning:
    """The chosen setting and its measurements.

    Attributes:
        nprobe: lists to probe.
        k_factor: candidates to re-rank per hit.
        recall: measured recall at 10 of this setting.
        reached: whether the recall is at least the target.
        curve: the measured points that are not dominated by another point, cheapest first: (nprobe,
            k_factor, recall at 10, estimated ms per query on one core).
        fidelity: the fidelity of re-ranking, see :class:`GroundTruth`; recall includes it.
    """

    nprobe: int
    k_factor: int
    recall: float
    reached: bool
    curve: tuple[Point, ...]
    fidelity: float = 1.0


def candidate_count(k: int, k_factor: int) -> int:
    """Return the candidates to re-rank for ``k`` hits, at least those for ten (measured)."""
    return max(k, RECALL_AT) * k_factor


def estimated_ms(plan: IndexPlan, nprobe: int, k_factor: int) -> float:
    """Return the cost of scanning codes and re-ranking in the cost model."""
    width = plan.m * plan.bits / 8 / 64 if plan.m else plan.dim / 512
    scanned = plan.n * nprobe / plan.nlist * width * _CODE_MS.get(plan.bits, _CODE_MS[8])
    depth = min(plan.n, candidate_count(RECALL_AT, k_factor))
    return scanned + depth * plan.dim * _RERANK_MS_PER_DIM


def yardstick(
    vectors: Vectors,
    rows: NDArray[np.int64] | None,
    queries: NDArray[np.float32] | None,
    seed: int,
    threads: int,
) -> GroundTruth:
    """Draw queries with a seed and answer them with exact search.

    Args:
        vectors: the corpus; removed rows are neither queries nor answers.
        rows: the part of the corpus in the index, with ids 0, 1, ...; None: all.
        queries: float32 (any, dim) to draw from; None: the corpus.
        seed: the seed of the draw.
        threads: for faiss.

    Raises:
        InternalError: queries and corpus have different dimensions.
    """
    n = vectors.live if rows is None else len(rows)
    share = n / vectors.live
    wanted = max(1, round(RECALL_AT * share))
    if queries is not None and len(queries):
        if queries.shape[1] != vectors.dim:
            raise InternalError(f"queries {queries.shape} for {vectors.dim} dimensions")
        drawn = sample_rows(len(queries), TUNING_QUERIES, seed)
        asked = np.ascontiguousarray(queries[drawn], dtype=np.float32)
        _, truth = exact_search(blocks_of(vectors, rows), asked, min(wanted, n), threads)
        return GroundTruth(asked, truth, None, share)
    own = sample_rows(n, TUNING_QUERIES, seed)
    if rows is None and len(vectors.removed):
        own = vectors.live_ids()[own]
    asked = take_wide(vectors, own if rows is None else rows[own])
    wanted = min(wanted, n - 1)
    _, truth = exact_search(blocks_of(vectors, rows), asked, wanted + 1, threads)
    itself_last = np.argsort(truth == own[:, np.newaxis], axis=1, kind="stable")
    truth = np.take_along_axis(truth, itself_last, axis=1)[:, :wanted]
    return GroundTruth(asked, truth, own, share)


def fidelity_of(
    vectors: Vectors, originals: Blocks, queries: NDArray[np.float32], threads: int
) -> float:
    """Return the share of the ten best that are still the ten best with the stored vectors.

    Rounding to 8 bits changes scores by about 0.0005, which can swap closer neighbours.

    Args:
        vectors: the stored vectors.
        originals: the same vectors as encoded, with their ids.
        queries: float32 (q, dim).
        threads: for faiss.
    """
    wanted = min(RECALL_AT, vectors.live)
    _, truth = exact_search(originals, queries, wanted, threads)
    _, found = exact_search(blocks_of(vectors, None), queries, wanted, threads)
    return float((truth[:, :, np.newaxis] == found[:, np.newaxis, :]).any(axis=2).mean())


def tune(index: Any, plan: IndexPlan, yard: GroundTruth, target: float, threads: int) -> Tuning:
    """Measure settings and choose the cheapest that reaches the target.

    Args:
        index: the CPU index.
        plan: the plan of the index.
        yard: queries and their true answers.
        target: the recall target at 10, in (0, 1).
        threads: for faiss.
    """
    points: list[Point] = []
    reaching: float | None = None
    with faiss_settings(threads, plan.dim):
        for nprobe in _probes(min(plan.nlist, MAX_K) if plan.gpu else plan.nlist):
            if reaching is not None and estimated_ms(plan, nprobe, _DEPTHS[0]) >= reaching:
                break
            found = _measure(index, plan, nprobe, yard)
            points += found
            costs = [cost for _, _, recall, cost in found if recall >= target]
            reaching = min([*costs, *([] if reaching is None else [reaching])], default=None)
    return replace(choose(points, target), fidelity=yard.fidelity)


def hold(
    index: Any,
    plan: IndexPlan,
    yard: GroundTruth,
    found: Tuning,
    before: tuple[int, int],
    threads: int,
) -> Tuning:
    """Keep an earlier setting that reaches at least the recall of ``found`` at a higher cost.

    If the setting were chosen again for each version, recall would vary by the steps between
    settings although the index has not become worse. The setting therefore changes only to a more
    expensive one.

    Args:
        index: the CPU index.
        plan: the plan of the index.
        yard: queries and their true answers.
        found: the setting that :func:`tune` would choose.
        before: nprobe and k_factor of the last version.
        threads: for faiss.
    """
    nprobe, k_factor = min(before[0], plan.nlist), before[1]
    if estimated_ms(plan, nprobe, k_factor) <= estimated_ms(plan, found.nprobe, found.k_factor):
        return found  # the cheapest setting that reaches the target is more expensive than this one
    with faiss_settings(threads, plan.dim):
        points = [point for point in _measure(index, plan, nprobe, yard) if point[1] <= k_factor]
    recall = points[-1][2]
    if recall < found.recall:
        return found
    return replace(found, nprobe=nprobe, k_factor=k_factor, recall=recall)


def choose(points: list[Point], target: float) -> Tuning:
    """Return the cheapest point that reaches the target, or the best one."""
    curve: list[Point] = []
    for point in sorted(points, key=lambda point: (point[3], -point[2], point[0])):
        if not curve or point[2] > curve[-1][2]:
            curve.append(point)
    chosen = next((point for point in curve if point[2] >= target), curve[-1])
    return Tuning(
        nprobe=chosen[0],
        k_factor=chosen[1],
        recall=chosen[2],
        reached=chosen[2] >= target,
        curve=tuple(curve),
    )


def _probes(nlist: int) -> list[int]:
    """Return 1 to 8, 10, 12, 14, 16, 20, ... up to all lists: four steps per power of two."""
    steps = {1, 2, 3, nlist}
    quarter = 1
    while quarter * 4 < nlist:
        steps |= {quarter * part for part in (4, 5, 6, 7)}
        quarter *= 2
    return sorted(step for step in steps if step <= nlist)


def _measure(index: Any, plan: IndexPlan, nprobe: int, yard: GroundTruth) -> list[Point]:
    deepest = min(plan.n, yard.depth(_DEPTHS[-1]) + 1)
    found = find_candidates(index, yard.queries, deepest, nprobe)
    # The position of each true neighbour among the candidates.
    hits = found[:, np.newaxis, :] == yard.truth[:, :, np.newaxis]
    position = np.where(hits.any(axis=2), hits.argmax(axis=2), _NEVER)
    if yard.own is not None:
        itself = found == yard.own[:, np.newaxis]
        before = np.where(itself.any(axis=1), itself.argmax(axis=1), _NEVER)
        position -= before[:, np.newaxis] < position
    points = []
    for depth in _DEPTHS:
        inside = position < yard.depth(depth)
        recall = yard.fidelity * (float(inside.mean()) if inside.size else 1.0)
        points.append((nprobe, depth, round(recall, 6), estimated_ms(plan, nprobe, depth)))
        if yard.depth(depth) >= plan.n:
            break
    return points
