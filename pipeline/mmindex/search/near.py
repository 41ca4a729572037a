"""Find images that are almost the same: pairs of vectors above a threshold, checked exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.model_names import EMBEDDED
from mmindex.search.searcher import Searcher
from mmindex.store.manifest import EncoderInfo
from mmindex.store.vectors import Vectors

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# A starting point: the similarity that separates copies from look-alikes depends on the model.
_THRESHOLD: Final = 0.96
# Measured (benchmarks/bench_insight.py): with the embedded model, almost all resized or
# recompressed copies are above this threshold, and so are 21 of 2,000 different scenes (at 0.96:
# 48), and none of 159 photographs.
_THRESHOLD_EMBEDDED: Final = 0.98
_FIRST_DEPTH: Final = 16
_BLOCK_ROWS: Final = 1_024
# Answers in memory: 4 Mi pairs of float32 score and int64 id are 48 MiB.
_ANSWERS: Final = 1 << 22
# The search uses the unrounded query, so its score can differ by this amount.
_SLACK: Final = 2e-3


def default_threshold(encoder: EncoderInfo) -> float:
    """Return the default of the lowest similarity of a linked pair."""
    return _THRESHOLD_EMBEDDED if encoder.model == EMBEDDED else _THRESHOLD


def group_leaders(units: Float64, threshold: float, most: int | None = None) -> Int64:
    """Return the position of the leader of each row's group: int64 (n,).

    A row joins the group of the first leader that it is close to; otherwise it becomes a leader.

    Args:
        units: float64 (n, dim), unit length, best first.
        threshold: the lowest cosine similarity of a row to the leader of its group.
        most: the number of groups after which to stop; later rows get -1. None for all.
    """
    leaders = np.full(len(units), -1, dtype=np.int64)
    found = 0
    for place in range(len(units)):
        if found == most:
            break
        if leaders[place] < 0:
            found += 1
            free = leaders[place:] < 0
            leaders[place:][free & (units[place:] @ units[place] >= threshold)] = place
            leaders[place] = place  # even if its rounded similarity to itself is lower
    return leaders


def close_pairs(
    searcher: Searcher, vectors: Vectors, wanted: Int64, threshold: float, *, whole: bool = False
) -> Iterator[tuple[Int64, Int64]]:
    """Yield pairs of ids whose similarity is at least ``threshold``, as two int64 arrays.

    The first id is one of ``wanted``; the second is another one of them or, with ``whole``, any
    other id of the index.
    """
    some = None if whole or len(wanted) == searcher.n else wanted
    most = searcher.n if whole else len(wanted)
    for start in range(0, len(wanted), _BLOCK_ROWS):
        open_ids = wanted[start : start + _BLOCK_ROWS]
        depth = min(_FIRST_DEPTH, most)
        while len(open_ids):
            again = []
            step = max(1, _ANSWERS // depth)
            for first in range(0, len(open_ids), step):
                asked = open_ids[first : first + step]
                queries = unit_rows(vectors.take(asked)).astype(np.float32)
                scores, found = searcher.search(queries, depth, some)
                near = (found >= 0) & (scores >= threshold - _SLACK)
                left, right = np.repeat(asked, near.sum(axis=1)), found[near]
                other = left != right
                yield _checked(vectors, left[other], right[other], threshold)
                # All results are close, so there may be more.
                again.append(asked[near.all(axis=1)])
            open_ids = np.concatenate(again) if depth < most else open_ids[:0]
            depth = min(depth * 4, most)


def _checked(vectors: Vectors, left: Int64, right: Int64, threshold: float) -> tuple[Int64, Int64]:
    """Return the pairs whose exact cosine similarity reaches the threshold."""
    close = np.zeros(len(left), dtype=bool)
    for start in range(0, len(left), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        close[part] = cosines(vectors, left[part], right[part]) >= threshold
    return left[close], right[close]


def cosines(vectors: Vectors, left: Int64, right: Int64) -> Float64:
    """Return the cosine similarity of each pair of ids: float64 (n,)."""
    products: Float64 = unit_rows(vectors.take(left)) * unit_rows(vectors.take(right))
    return np.asarray(products.sum(axis=1))


def unit_rows(rows: NDArray[np.float16]) -> Float64:
    """Return float16 (n, dim) as float64 of length 1, which rounding had changed by about 1e-4."""
    wide = rows.astype(np.float64)
    unit: Float64 = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit
