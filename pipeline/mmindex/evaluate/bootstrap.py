"""Confidence intervals of recall: percentile bootstrap over images.

Captions of one image are not independent (an unusual image affects all five), so images are drawn
with replacement, together with all their queries; intervals over captions drawn one by one would be
too narrow. Percentile interval: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13; whole clusters: C. Field, A. Welsh, Bootstrapping clustered data, JRSS B 69 (2007)
369-390.

The gallery stays fixed: the intervals describe other queries to this corpus, not other corpora. If
every query succeeds, or none, the interval has no width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import InternalError

Int64 = NDArray[np.int64]

# The ends of a 95 % interval differ by about 1 % of its width between seeds.
REPLICATES = 2_000
LEVEL = 95.0
KS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Interval:
    """A recall figure and its 95 % interval, in percent."""

    k: int
    value: float
    low: float
    high: float


def recall_figures(ranks: Int64) -> dict[str, float]:
    """Return recall in percent, ``r@1``, ``r@5`` and ``r@10``, for ranks from 1 on: int64 (q,)."""
    return {f"r@{k}": round(100 * float(np.mean(ranks <= k)), 4) for k in KS}


def mean_over_images(values: NDArray[np.float64], images: Int64) -> tuple[float, float]:
    """Return the mean over queries, and its standard error over images.

    Args:
        values: float64 (q,), the value of each query.
        images: int64 (q,), the image of each query.
    """
    _, image = np.unique(images, return_inverse=True)
    sums = np.bincount(image, values - values.mean())
    scale = len(sums) / max(1, len(sums) - 1)
    return float(values.mean()), float(np.sqrt(scale * (sums**2).sum()) / len(values))


def recall_intervals(
    ranks: Int64, images: Int64, seed: int, replicates: int = REPLICATES
) -> tuple[Interval, ...]:
    """Return recall@1, 5 and 10 with their intervals.

    Args:
        ranks: int64 (q,), the rank of each query, at least 1.
        images: int64 (q,), the image of each query.
        seed: the seed of the draws.
        replicates: the number of draws.

    Raises:
        InternalError: there are no queries.
    """
    hits = np.stack([ranks <= k for k in KS], axis=1).astype(np.float64)
    means = mean_intervals(100.0 * hits, images, seed, replicates)
    return tuple(Interval(k, *found) for k, found in zip(KS, means, strict=True))


def mean_intervals(
    values: NDArray[np.float64], images: Int64, seed: int, replicates: int = REPLICATES
) -> tuple[tuple[float, float, float], ...]:
    """Return the mean over queries and its 95 % interval for each column of values.

    Args:
        values: float64 (q, m), m values of each query.
        images: int64 (q,), the image of each query.
        seed: the seed of the draws.
        replicates: the number of draws.

    Raises:
        InternalError: there are no queries.
    """
    if not len(values):
        raise InternalError("no queries to draw from")
    _, group = np.unique(images, return_inverse=True)
    count = int(group.max()) + 1
    # One row for each image: the sum of each column over its queries, and their number.
    sums = np.stack(
        [np.bincount(group, weights=column, minlength=count) for column in values.T]
        + [np.bincount(group, minlength=count).astype(np.float64)],
        axis=1,
    )
    rng = np.random.default_rng(seed)
    drawn = np.empty((replicates, values.shape[1]))
    for number in range(replicates):
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        totals = times.astype(np.float64) @ sums
        drawn[number] = totals[:-1] / totals[-1]
    tail = (100.0 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100.0 - tail], axis=0)
    means = sums[:, :-1].sum(axis=0) / len(values)
    return tuple(zip(means.tolist(), low.tolist(), high.tolist(), strict=True))
