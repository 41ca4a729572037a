"""Convert rankings to results: hits without near-duplicates, if wanted, and with probabilities."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
from numpy.typing import NDArray

from mmindex.core.records import Hit
from mmindex.search.calibration import CONTEXT, Calibration
from mmindex.search.hits import Limit, Ranked, hits
from mmindex.search.hubness import Hubness
from mmindex.search.rank import Find, Found, by_vector, nearest
from mmindex.search.scope import Scope


def vector_results(
    scope: Scope,
    vectors: NDArray[np.float32],
    limit: Limit,
    judge: Calibration | None,
    left_out: Set[str] = frozenset(),
    hubness: Hubness | None = None,
) -> list[tuple[Hit, ...]]:
    """Return the hits for each of many vectors, in one pass over the index and the tables.

    Args:
        scope: the vectors to search.
        vectors: float32 (q, dim), unit length.
        limit: the limits of each result.
        judge: the calibration for such queries; None if there is none.
        left_out: keys to exclude.
        hubness: the correction for such queries; None if there is none.

    Raises:
        DataError: the store is damaged.
    """
    if limit.distinct:
        rankings = (by_vector(scope, one, limit, hubness) for one in vectors)
        return [result(scope, find, limit, judge, left_out) for find in rankings]
    context = 0 if judge is None else CONTEXT
    depth = _depth(scope, limit, left_out)
    found = nearest(scope, vectors, depth, limit, context, hubness)
    return _results(scope, found, limit, judge, left_out)


def result(
    scope: Scope,
    find: Find,
    limit: Limit,
    judge: Calibration | None = None,
    left_out: Set[str] = frozenset(),
) -> tuple[Hit, ...]:
    """Return the hits of one ranking; other arguments and errors as :func:`vector_results`."""
    if limit.distinct:
        from mmindex.search.distinct import distinct_hits

        best, context = distinct_hits(scope, find, limit, left_out)
        return _judged(judge, best, context, limit)
    [answer] = _results(scope, [find(_depth(scope, limit, left_out))], limit, judge, left_out)
    return answer


def _depth(scope: Scope, limit: Limit, left_out: Set[str]) -> int:
    return min(limit.k + len(left_out), scope.searcher.n)


def _results(
    scope: Scope,
    found: Sequence[Found],
    limit: Limit,
    judge: Calibration | None,
    left_out: Set[str],
) -> list[tuple[Hit, ...]]:
    ranked = [_named(scope, one, left_out) for one in found]
    every = hits(scope.snapshot, scope.to, ranked, limit, scope.rows)
    return [_judged(judge, one, of.context, limit) for one, of in zip(every, found, strict=True)]


def _named(scope: Scope, found: Found, left_out: Set[str]) -> Ranked:
    """Return a ranking by key."""
    kept = [
        (key, score)
        for key, score in zip(scope.searcher.keys(found.ids), found.scores.tolist(), strict=True)
        if key not in left_out
    ]
    return Ranked([key for key, _ in kept], [score for _, score in kept], found.cosine)


def _judged(
    judge: Calibration | None,
    found: tuple[Hit, ...],
    context: NDArray[np.float64] | None,
    limit: Limit,
) -> tuple[Hit, ...]:
    """Return hits with probabilities; only good ones if they are wanted."""
    if judge is None or context is None:
        return found
    judged = judge.judge(found, context)
    return tuple(hit for hit in judged if not hit.weak) if limit.good else judged
