"""Fit the calibrations of a version to the captions of its corpus.

One half of the images is used, with all their captions; :mod:`mmindex.evaluate.reliability`
measures the result with the other half. Every query is used twice: with the whole gallery, and
without its right answer and everything similar (:mod:`mmindex.evaluate.lists`). Probabilities
therefore assume that half of all queries have an answer.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.config import EvaluateConfig
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.evaluate.corpus import Corpus, load_corpus
from mmindex.evaluate.lists import SHOWN, Lists, score_lists
from mmindex.search.calibration import Calibration, share_logits
from mmindex.search.searcher import Searcher
from mmindex.store.snapshot import Snapshot

DIRECTIONS: Final = ((Modality.TEXT, Modality.IMAGE), (Modality.IMAGE, Modality.TEXT))
"""The sides of queries and hits that have calibrations."""

# With fewer images, the 5 % that are left out are a single image, and thresholds are unreliable.
_MIN_IMAGES: Final = 25
# Least number of right answers among the first hits; with fewer, there is nothing to calibrate.
_MIN_RIGHT: Final = 20
_TEMPERATURES: Final = np.geomspace(0.005, 0.3, 25)
# Share of the right answers among the hits whose distance from the best does not make them weak.
_GAP_QUANTILE: Final = 0.98
# Largest share of the right answers among the first hits that `query --good` may lose.
_MOST_LOST: Final = 0.1
_STEPS: Final = 50
_DIGITS: Final = 6  # the last bits differ between processors and must not change the object

Float64 = NDArray[np.float64]


def calibrate(snapshot: Snapshot, config: EvaluateConfig) -> tuple[Calibration, ...]:
    """Fit a calibration for each direction that has enough captioned images.

    Args:
        snapshot: the version or its draft, indexed.
        config: the seed of samples.

    Raises:
        DataError: tables, ids and vectors do not match, or an object is damaged.
    """
    if Modality.TEXT not in snapshot.manifest.indexes:
        return ()
    corpus = load_corpus(snapshot)
    found = [_fit_direction(snapshot, corpus, sides, config.seed) for sides in DIRECTIONS]
    return tuple(one for one in found if one is not None)


def _fit_direction(
    snapshot: Snapshot, corpus: Corpus, sides: tuple[Modality, Modality], seed: int
) -> Calibration | None:
    asked, to = sides
    lists = score_lists(Searcher(snapshot, to), corpus, asked, fitting=True, seed=seed)
    found = None if lists is None else fit(lists, asked, to)
    if found is None:
        get_logger("evaluate").info(
            "too few captioned images to fit probabilities", asked=asked, to=to
        )
    return found


def fit(lists: Lists, asked: Modality, to: Modality) -> Calibration | None:
    """Fit the calibration of one direction; None if there are too few images or right answers."""
    shown_right = lists.right[:, :SHOWN]
    if lists.unique_images < _MIN_IMAGES or shown_right.sum() < _MIN_RIGHT:
        return None
    temperature = _temperature(lists)
    best, best_without = lists.matched[:, 0], lists.unmatched[:, 0]
    there = np.isfinite(best_without)
    answered = fit_logistic(
        np.concatenate((best, best_without[there])),
        np.concatenate((np.ones(len(best)), np.zeros(int(there.sum())))),
    )
    hits = np.isfinite(lists.matched)
    odds = share_logits(np.where(hits, lists.matched, 0.0), lists.matched, temperature)
    chosen = fit_logistic(odds[hits], lists.right[hits].astype(np.float64))
    right = lists.matched[:, :SHOWN][shown_right]
    right_best = np.repeat(best, shown_right.sum(axis=1))
    gap = float(np.quantile(right_best - right, _GAP_QUANTILE))
    # The highest threshold under which each right answer is not weak.
    passes = np.where(right_best - right <= gap, right_best, right)
    least = _threshold(passes, best_without)
    flat = np.quantile(right, np.mean(passes < least))
    return Calibration(
        asked=asked,
        to=to,
        temperature=round(temperature, _DIGITS),
        answered=answered,
        chosen=chosen,
        best=round(least, _DIGITS),
        gap=round(gap, _DIGITS),
        flat=round(float(flat), _DIGITS),
        queries=len(lists),
        images=lists.unique_images,
    )


def _temperature(lists: Lists) -> float:
    """Return the temperature under which right answers have the largest shares (likelihood)."""
    some = lists.right.any(axis=1)
    scores, right = lists.matched[some], lists.right[some]
    high = scores[:, :1]

    def likelihood(temperature: float) -> float:
        weights = np.exp((scores - high) / temperature)
        share = (weights * right).sum(axis=1) / weights.sum(axis=1)
        return float(np.log(np.maximum(share, 1e-12)).mean())

    return float(max(_TEMPERATURES, key=likelihood))


def _threshold(right: Float64, without: Float64) -> float:
    """Return the best score that a query with an answer should have.

    It maximises the share of queries without an answer that are recognised minus the share of right
    answers that are lost (W. J. Youden, Index for rating diagnostic tests, 1950), which is at most
    ``_MOST_LOST``.

    Args:
        right: float64 (r,), the highest threshold under which each right answer is not weak.
        without: float64 (q,), the best scores of queries without an answer.
    """
    candidates = np.unique(right)
    lost = np.searchsorted(np.sort(right), candidates) / len(right)
    nothing = np.searchsorted(np.sort(without), candidates) / len(without)
    gain = np.where(lost <= _MOST_LOST, nothing - lost, -1.0)
    place = int(gain.argmax())
    return float(candidates[place]) if gain[place] > 0 else -1.0


def fit_logistic(x: Float64, y: Float64) -> tuple[float, float]:
    """Fit ``P(y = 1) = sigmoid(a + b x)`` and return ``(a, b)``.

    As in Platt (1999), the labels are smoothed, so that perfectly separated values have a finite
    slope. A negative slope means that scores have no meaning: it is replaced by 0.

    Args:
        x: float64 (n,), finite.
        y: float64 (n,), 0 or 1.
    """
    ones = float(y.sum())
    zeros = len(y) - ones
    high, low = (ones + 1) / (ones + 2), 1 / (zeros + 2)
    labels = np.where(y > 0, high, low)
    middle, spread = float(x.mean()), float(x.std())
    share = float(labels.mean())
    constant = float(np.log(share / (1 - share)))
    if spread < 1e-9:
        return round(constant, _DIGITS), 0.0
    columns = np.stack((np.ones(len(x)), (x - middle) / spread), axis=1)
    weights = _newton(columns, labels, np.array([constant, 0.0]))
    slope = float(weights[1]) / spread
    if slope <= 0:
        return round(constant, _DIGITS), 0.0
    return round(float(weights[0]) - slope * middle, _DIGITS), round(slope, _DIGITS)


def _newton(columns: Float64, labels: Float64, start: Float64) -> Float64:
    """Minimise the logistic loss by Newton's method; steps that increase it are halved."""

    def loss(weights: Float64) -> float:
        x = columns @ weights
        return float((np.logaddexp(0.0, x) - labels * x).sum())

    weights, now = start, loss(start)
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(columns @ weights, -30.0, 30.0)))
        curve = (columns * (p * (1 - p))[:, None]).T @ columns + 1e-9 * np.eye(len(start))
        step = np.linalg.solve(curve, columns.T @ (p - labels))
        while (then := loss(weights - step)) > now and np.abs(step).max() > 1e-9:
            step = step / 2
        if then >= now:
            break
        weights, now = weights - step, then
    return weights
