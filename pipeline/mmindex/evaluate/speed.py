"""Speed of an index: queries per second at each point of its tuning curve.

Speed depends on the machine, so it is measured for each report. Recall comes from the curve, which
was measured when the index was built and does not depend on the machine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.evaluate.corpus import VectorSource, sample
from mmindex.index.exact import thread_count
from mmindex.search.searcher import Searcher
from mmindex.store.manifest import IndexInfo
from mmindex.store.snapshot import Snapshot

# The batch size, as in `query --queries`; small enough that a point takes about 30 ms.
BATCH = 256
_K = 10
# A point is timed repeatedly for this time, but at least three times; the fastest run counts.
_SECONDS = 0.2
_REPEATS = 3
# Number of single queries to time.
_ALONE = 20


@dataclass(frozen=True, slots=True)
class SpeedPoint:
    """One setting of an index.

    Attributes:
        nprobe, k_factor: lists to probe, candidates to re-rank per hit.
        recall: recall@10 in percent; None if it was not measured.
        queries_per_s: measured now, on this machine.
        cost_ms: milliseconds per query on one core in the cost model, the same on every machine;
            None for exact search.
        chosen: whether searches use this setting.
    """

    nprobe: int
    k_factor: int
    recall: float | None
    queries_per_s: float
    cost_ms: float | None
    chosen: bool


@dataclass(frozen=True, slots=True)
class Speed:
    """The curve of the index of one side, cheapest point first, and how it was timed.

    ``alone_ms``: milliseconds of a single query with the chosen setting, the median of several.
    """

    side: Modality
    info: IndexInfo
    points: tuple[SpeedPoint, ...]
    batch: int
    threads: int
    alone_ms: float


def measure_speed(snapshot: Snapshot, side: Modality, asked: VectorSource, seed: int) -> Speed:
    """Time the searches of one index.

    Args:
        snapshot: the version.
        side: the side of the index.
        asked: the source of queries: the other side of the corpus.
        seed: the seed of the draw.
    """
    searcher = Searcher(snapshot, side)
    ids = asked.live_ids()
    queries = asked.take(ids[sample(len(ids), BATCH, seed)]).astype(np.float32)
    info = searcher.info
    alone = _alone(searcher, queries)
    if info.exact:
        exact = SpeedPoint(0, 0, 100.0, _rate(searcher, queries), None, True)
        return Speed(side, info, (exact,), len(queries), thread_count(None), alone)
    chosen = info.nprobe, info.k_factor
    measured = None if info.measured_recall is None else 100 * info.measured_recall
    curve = [(nprobe, k, 100 * found, cost) for nprobe, k, found, cost in info.curve]
    settings: list[tuple[int, int, float | None, float | None]] = list(curve)
    if chosen not in {(nprobe, k) for nprobe, k, _, _ in curve}:
        settings.append((*chosen, measured, None))
    points = []
    for nprobe, k_factor, found, cost in settings:
        # The searcher reads its settings in each search, so one index in memory serves all points.
        searcher.info = msgspec.structs.replace(info, nprobe=nprobe, k_factor=k_factor)
        rate = _rate(searcher, queries)
        points.append(SpeedPoint(nprobe, k_factor, found, rate, cost, (nprobe, k_factor) == chosen))
    return Speed(side, info, tuple(points), len(queries), thread_count(None), alone)


def _rate(searcher: Searcher, queries: NDArray[np.float32]) -> float:
    """Return queries per second of the fastest of several batches, after a warm-up."""
    searcher.search(queries, _K)
    best = np.inf
    begun = time.perf_counter()
    runs = 0
    while runs < _REPEATS or time.perf_counter() - begun < _SECONDS:
        start = time.perf_counter()
        searcher.search(queries, _K)
        best = min(best, time.perf_counter() - start)
        runs += 1
    return float(len(queries) / best)


def _alone(searcher: Searcher, queries: NDArray[np.float32]) -> float:
    """Return milliseconds of a single query, the median of several, after a warm-up."""
    searcher.search(queries[:1], _K)
    taken = []
    for number in range(_ALONE):
        start = time.perf_counter()
        searcher.search(queries[number % len(queries), None], _K)
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken))
