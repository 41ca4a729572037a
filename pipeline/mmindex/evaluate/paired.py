"""Compare two models on the same queries: paired differences of recall.

Interval: percentile bootstrap of the difference, over images, see
:mod:`mmindex.evaluate.bootstrap`. Test: exact McNemar, the two-sided binomial test of the queries
that only one model answers: Q. McNemar, Psychometrika 12 (1947) 153-157.

The interval takes into account that the captions of an image are not independent. The test treats
all queries as independent, so its p-value is too small if captions of one image change together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmindex.evaluate.bootstrap import KS, REPLICATES, mean_intervals

Int64 = NDArray[np.int64]

_SMALLEST_P = 1e-99


@dataclass(frozen=True, slots=True)
class Change:
    """Recall@k of two models, in percent.

    Attributes:
        k: the number of answers.
        here, there: the recall of the first and of the second model.
        low, high: the 95 % interval of ``here - there``.
        only_here, only_there: how many queries only this model answers.
        p: the p-value of McNemar's exact test.
    """

    k: int
    here: float
    there: float
    low: float
    high: float
    only_here: int
    only_there: int
    p: float

    @property
    def difference(self) -> float:
        """``here - there``, in percentage points."""
        return self.here - self.there

    @property
    def shown_p(self) -> str:
        """``p`` with two digits; never 0, although doubles end near 1e-308."""
        return f"{self.p:.2g}" if self.p >= _SMALLEST_P else f"<{_SMALLEST_P:g}"


def recall_changes(
    here: Int64, there: Int64, images: Int64, seed: int, replicates: int = REPLICATES
) -> tuple[Change, ...]:
    """Return the changes of recall@1, 5 and 10.

    Args:
        here, there: int64 (q,), the rank of each query with each model, at least 1.
        images: int64 (q,), the image of each query.
        seed: the seed of the draws.
        replicates: the number of draws.

    Raises:
        InternalError: there are no queries.
    """
    first, second = (np.stack([ranks <= k for k in KS], axis=1) for ranks in (here, there))
    differences = first.astype(np.float64) - second
    intervals = mean_intervals(100.0 * differences, images, seed, replicates)
    changes = []
    for place, (_, low, high) in enumerate(intervals):
        only_here = int(np.count_nonzero(differences[:, place] > 0))
        only_there = int(np.count_nonzero(differences[:, place] < 0))
        changes.append(
            Change(
                k=KS[place],
                here=100.0 * float(first[:, place].mean()),
                there=100.0 * float(second[:, place].mean()),
                low=low,
                high=high,
                only_here=only_here,
                only_there=only_there,
                p=mcnemar(only_here, only_there),
            )
        )
    return tuple(changes)


def mcnemar(one: int, other: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    Args:
        one, other: how many queries only the first and only the second model answers.
    """
    count = one + other
    logs = (
        math.lgamma(count + 1) - math.lgamma(hits + 1) - math.lgamma(count - hits + 1)
        for hits in range(min(one, other) + 1)
    )
    tail = math.fsum(math.exp(log - count * math.log(2)) for log in logs)
    return min(1.0, 2 * tail)


def most_changed(here: Int64, there: Int64, images: Int64, count: int) -> tuple[Int64, Int64]:
    """Return the queries whose ranks changed most, by the ratio of the ranks; one per image.

    Args:
        here, there: int64 (q,), the rank of each query with each model.
        images: int64 (q,), the image of each query.
        count: the largest number of queries in each list.

    Returns:
        int64 positions, at most ``count`` each: better here, and better there.
    """
    ratio = np.log(there) - np.log(here)
    down, up = np.argsort(-ratio, kind="stable"), np.argsort(ratio, kind="stable")
    parts = down[ratio[down] > 0], up[ratio[up] < 0]
    firsts = [np.sort(np.unique(images[part], return_index=True)[1]) for part in parts]
    better, worse = (part[first[:count]] for part, first in zip(parts, firsts, strict=True))
    return better, worse
