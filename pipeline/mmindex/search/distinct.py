"""Search results without near-duplicates: the best hit of each group, with the group's size.

A hit that is almost the same as a better one belongs to the group of the best such hit
(:mod:`mmindex.search.near`). The search depth increases until there are enough groups. Captions
are grouped by their text.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.core.records import Hit
from mmindex.search.hits import Limit, rows_by_key, shown_score
from mmindex.search.near import Int64, close_pairs, default_threshold, group_leaders, unit_rows
from mmindex.search.rank import Find, Found
from mmindex.search.scope import Scope

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_FIRST_DEPTH = 4  # hits per wanted hit in the first search


def distinct_hits(
    scope: Scope, find: Find, limit: Limit, left_out: Set[str] = frozenset()
) -> tuple[tuple[Hit, ...], Float64 | None]:
    """Return the best hit of each of ``limit.k`` groups, with its number of ``copies``.

    ``copies`` counts all other rows of the group, whatever their own score: rows with the same
    content, and images that are almost the same as this hit but not as a better one.

    Also returns the ``context`` of the ranking, see :class:`~mmindex.search.rank.Found`.

    Args:
        scope: the vectors to search.
        find: the ranking of the query.
        limit: the number of hits and the lowest score.
        left_out: keys to exclude.

    Raises:
        DataError: the store is damaged.
    """
    best = _leaders(scope, find, limit, left_out)
    if not len(best.ids):
        return (), best.context
    others = _near(scope, best.ids)
    every = np.concatenate([best.ids, *others])
    keys = scope.searcher.keys(every)
    named = rows_by_key(scope.snapshot, scope.to, set(keys) - left_out, scope.rows)
    key_of = dict(zip(every.tolist(), keys, strict=True))
    found = []
    scores = best.scores.tolist()
    for place, (leader, score) in enumerate(zip(best.ids.tolist(), scores, strict=True)):
        row, *same = named[key_of[leader]]
        near = sum(len(named.get(key_of[one], ())) for one in others[place].tolist())
        found.append(Hit(
            place + 1, shown_score(score, best.cosine), row.id, row.uri, row.caption,
            row.image_id, len(same) + near,
        ))  # fmt: skip
    return tuple(found), best.context


def _leaders(scope: Scope, find: Find, limit: Limit, left_out: Set[str]) -> Found:
    """Return the best hit of each group."""
    most = scope.searcher.n if scope.ids is None else len(scope.ids)
    depth = min(_FIRST_DEPTH * limit.k + len(left_out), most)
    while depth:
        found = find(depth)
        ids, scores = found.ids, found.scores
        if left_out:
            kept = np.array([key not in left_out for key in scope.searcher.keys(ids)], np.bool_)
            ids, scores = ids[kept], scores[kept]
        leaders = _first_of_groups(scope, ids, limit.k)
        if len(leaders) == limit.k or found.ended or depth == most:
            return replace(found, ids=ids[leaders], scores=scores[leaders])
        depth = min(4 * depth, most)
    return Found(np.empty(0, np.int64), np.empty(0, np.float32), ended=True)


def _first_of_groups(scope: Scope, ids: Int64, most: int) -> Int64:
    """Return the positions of the first ``most`` ids that are not similar to an earlier one."""
    if scope.to is Modality.TEXT:
        return np.arange(min(most, len(ids)))
    threshold = default_threshold(scope.snapshot.encoder)
    units = unit_rows(scope.snapshot.vectors(Modality.IMAGE).take(ids))
    return np.flatnonzero(group_leaders(units, threshold, most) == np.arange(len(ids)))


def _near(scope: Scope, leaders: Int64) -> list[Int64]:
    """Return the ids that are almost the same as each leader; each belongs to its best leader."""
    if scope.to is Modality.TEXT:
        return [np.empty(0, np.int64)] * len(leaders)
    threshold = default_threshold(scope.snapshot.encoder)
    vectors = scope.snapshot.vectors(Modality.IMAGE)
    pairs = [*close_pairs(scope.searcher, vectors, np.unique(leaders), threshold, whole=True)]
    left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
    if scope.ids is not None:
        allowed = np.isin(right, scope.ids)
        left, right = left[allowed], right[allowed]
    place_of = {leader: place for place, leader in enumerate(leaders.tolist())}
    best: dict[int, int] = {}
    for leader, other in zip(left.tolist(), right.tolist(), strict=True):
        if other not in place_of:
            best[other] = min(best.get(other, len(leaders)), place_of[leader])
    found: list[list[int]] = [[] for _ in leaders]
    for other, place in best.items():
        found[place].append(other)
    return [np.array(one, np.int64) for one in found]
