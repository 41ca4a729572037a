"""Queries with several parts: late fusion of unit vectors.

With parts ``v_i`` (unit vectors of texts and images) and weights ``w_i`` the query is

    q = s / |s|,   s = sum over wanted parts of w_i v_i - sum over unwanted parts of w_i v_i

and a hit's score is its cosine similarity with q, which is what ``--min-score`` is compared with.
Hits are therefore ranked by ``sum w_i cos(v_i, x) - sum w_i cos(v_i, x)``: fusing vectors before
the search is equivalent to fusing scores after it ("late fusion"), but needs only one search.
Adding wanted parts and subtracting unwanted parts is Rocchio's relevance feedback (J. J. Rocchio,
in G. Salton (ed.), The SMART Retrieval System, 1971, chapter 14).

By default, wanted parts share a total weight of 1, and unwanted parts a total of ``AWAY``. All
texts lie in one narrow cone (W. Liang et al., Mind the Gap, NeurIPS 2022), so subtracting a whole
text would mostly subtract "being a text", and with it the wanted texts. With five queries over
scenes, a quarter removed unwanted content from 98 % of the first ten hits, and a higher weight also
removed wanted content (benchmarks/bench_insight.py). Only ratios of weights matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import UsageError

Float32 = NDArray[np.float32]

AWAY: Final = 0.25
# Below this length, the sum consists of rounding errors, and its direction is meaningless.
_CANCELLED: Final = 1e-3
_MOST: Final = 1e6


def fuse(vectors: Float32, weights: Sequence[float]) -> Float32:
    """Combine several parts into one query vector.

    Args:
        vectors: float32 (parts, dim), unit length.
        weights: one for each part; negative for unwanted parts.

    Returns:
        float32 (dim,), unit length. A single part with a positive weight is returned unchanged.

    Raises:
        UsageError: the parts cancel each other out.
    """
    if len(vectors) == 1 and weights[0] > 0:
        alone: Float32 = vectors[0]
        return alone
    factors = np.asarray(weights, dtype=np.float64)
    factors /= np.abs(factors).max()  # only ratios matter
    total = factors @ vectors.astype(np.float64)
    length = float(np.linalg.norm(total))
    if length <= _CANCELLED * float(np.abs(factors).sum()):
        raise UsageError(
            "the parts of the query cancel each other out",
            "remove a part, or set other `weights`",
        )
    fused: Float32 = (total / length).astype(np.float32)
    return fused


def part_weights(wanted: int, unwanted: int, given: Sequence[float] | None) -> tuple[float, ...]:
    """Return the weight of each part, wanted parts first; weights of unwanted parts are negative.

    Args:
        wanted: number of wanted parts, at least 1.
        unwanted: number of unwanted parts.
        given: the weights from the user, all positive: one for each part, or one for each wanted
            part (unwanted parts then share ``AWAY`` times their sum); None: the defaults above.

    Raises:
        UsageError: the number of weights is wrong, or one is not a positive number.
    """
    if given is None:
        given = [1.0 / wanted] * wanted
    elif not all(0 < weight <= _MOST for weight in given):
        raise UsageError(
            f"`weights={_listed(given)}`: weights must be positive and at most {_MOST:g}",
            "pass unwanted parts as `minus`; their weights are positive too",
        )
    if len(given) == wanted:
        given = [*given, *([AWAY * sum(given) / unwanted] * unwanted if unwanted else [])]
    if len(given) != wanted + unwanted:
        parts = f"{wanted} wanted" + (f" and {unwanted} unwanted" if unwanted else "")
        raise UsageError(
            f"`weights` has {len(given)} numbers, but the query has {parts} parts",
            "pass one for each part: the text, each `image`, each `plus`, then each `minus`",
        )
    return (*given[:wanted], *(-weight for weight in given[wanted:]))


def parse_weights(text: str) -> tuple[float, ...]:
    """Parse numbers separated by commas, as in ``--weights``.

    Raises:
        UsageError: the text is not valid.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"`weights={text!r}`: not numbers separated by commas", "such as `weights=0.6,0.4`"
        ) from None


def _listed(weights: Sequence[float]) -> str:
    return ",".join(f"{weight:g}" for weight in weights)
