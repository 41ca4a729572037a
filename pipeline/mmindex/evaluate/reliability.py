"""Measure probabilities on held-out queries: expected calibration error and reliability diagram.

Hits are sorted into ten bins by their probability. The expected calibration error (ECE) is the mean
difference between the probability and the share of right answers in a bin, weighted by hits
(M. P. Naeini, G. Cooper, M. Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian
Binning, AAAI 2015). Its interval is a percentile bootstrap over images, as for recall.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.evaluate.bootstrap import LEVEL, REPLICATES
from mmindex.evaluate.evaluation import GoodHits, Reliability, ReliabilityBin, ReliabilityFigures
from mmindex.evaluate.lists import SHOWN, Lists
from mmindex.search.calibration import Calibration

_BINS: Final = 10
_DRAWS_AT_ONCE: Final = 200  # 200 x 1,200 images x 8 bytes are 2 MB

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


def reliability(calibration: Calibration, held_out: Lists, seed: int) -> Reliability:
    """Measure a calibration with queries that it was not fitted to.

    Every query counts twice: with its right answers in the gallery, and without them.
    """
    matched, without = held_out.matched, held_out.unmatched
    shown, shown_without = matched[:, :SHOWN], without[:, :SHOWN]
    right = held_out.right[:, :SHOWN]
    probability = calibration.probabilities(shown, matched)
    probability_without = calibration.probabilities(shown_without, without)
    flat, flat_without = (
        (scores >= calibration.flat).astype(np.float64) for scores in (shown, shown_without)
    )
    images = held_out.images

    def figures(first: int, one: Float64, other: Float64) -> ReliabilityFigures:
        return _figures(
            np.concatenate((one[:, :first], other[:, :first])),
            np.concatenate((right[:, :first], np.zeros_like(right[:, :first]))),
            np.concatenate((np.isfinite(shown[:, :first]), np.isfinite(shown_without[:, :first]))),
            np.concatenate((images, images)),
            seed,
        )

    return Reliability(
        fitted_queries=calibration.queries,
        fitted_images=calibration.images,
        queries=len(held_out),
        images=held_out.unique_images,
        hits=figures(SHOWN, probability, probability_without),
        first_hits=figures(1, probability, probability_without),
        first_hits_flat_threshold=figures(1, flat, flat_without),
        good=_good(
            ~calibration.weak(shown, matched), ~calibration.weak(shown_without, without), right
        ),
        flat_threshold=_good(flat > 0, flat_without > 0, right),
    )


def _good(kept: Bools, kept_without: Bools, right: Bools) -> GoodHits:
    """Return what a rule that keeps hits loses and recognises, in percent."""
    found, wrong = int(right.sum()), int((~right).sum())
    return GoodHits(
        right_lost=_percent(int((right & ~kept).sum()), found),
        wrong_kept=_percent(int((~right & kept).sum()), wrong),
        nothing=_percent(int((~kept_without.any(axis=1)).sum()), len(kept_without)),
    )


def _percent(part: int, whole: int) -> float:
    return round(100.0 * part / whole, 4) if whole else 0.0


def _figures(
    probability: Float64, right: Bools, there: Bools, images: Int64, seed: int
) -> ReliabilityFigures:
    """Sort hits into bins; all arguments but ``images`` (q,) have the shape (q, k)."""
    number = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
    _, group = np.unique(images, return_inverse=True)
    cell = np.repeat(group[:, None], probability.shape[1], axis=1)[there] * _BINS + number[there]
    size = (int(group.max()) + 1) * _BINS
    # For each image and bin: hits, the sum of their probabilities, right answers.
    sums: Float64 = np.stack(
        [
            np.bincount(cell, weights=weights, minlength=size).astype(np.float64).reshape(-1, _BINS)
            for weights in (
                np.ones(len(cell)),
                probability[there],
                right[there].astype(np.float64),
            )
        ]
    )
    hits, expected, true = sums.sum(axis=1)
    low, high = _interval(sums, seed)
    return ReliabilityFigures(
        ece=_ece(hits, expected, true),
        ece_low=low,
        ece_high=high,
        bins=tuple(
            ReliabilityBin(
                above=bin_number / _BINS,
                hits=int(hits[bin_number]),
                probability=_mean(expected[bin_number], hits[bin_number]),
                right=_mean(true[bin_number], hits[bin_number]),
            )
            for bin_number in range(_BINS)
        ),
    )


def _mean(total: float, count: float) -> float | None:
    return round(float(total / count), 4) if count else None


def _ece(hits: Float64, expected: Float64, true: Float64) -> float:
    return round(float(np.abs(expected - true).sum() / max(1.0, hits.sum())), 4)


def _interval(sums: Float64, seed: int) -> tuple[float, float]:
    """Draw images with replacement; ``sums`` is float64 (3, images, bins)."""
    count = sums.shape[1]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(REPLICATES // _DRAWS_AT_ONCE):
        times = rng.multinomial(count, np.full(count, 1 / count), size=_DRAWS_AT_ONCE)
        hits, expected, true = times.astype(np.float64) @ sums
        drawn.append(np.abs(expected - true).sum(axis=1) / np.maximum(1.0, hits.sum(axis=1)))
    tail = (100.0 - LEVEL) / 2
    low, high = np.percentile(np.concatenate(drawn), [tail, 100.0 - tail])
    return round(float(low), 4), round(float(high), 4)
