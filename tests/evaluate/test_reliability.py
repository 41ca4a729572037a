"""Calibration errors, bins and shares equal figures computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mmindex.core.modality import Modality
from mmindex.evaluate.lists import Lists
from mmindex.evaluate.reliability import reliability
from mmindex.search.calibration import CONTEXT, Calibration

# Every first hit has the probability sigmoid(0) * sigmoid(20): a half.
HALF = Calibration(
    asked=Modality.TEXT,
    to=Modality.IMAGE,
    temperature=0.01,
    answered=(0.0, 0.0),
    chosen=(20.0, 0.0),
    best=0.5,
    gap=0.2,
    flat=0.4,
    queries=7,
    images=5,
)


def padded(rows: list[list[float]]) -> np.ndarray:
    found = np.full((len(rows), CONTEXT), -np.inf)
    for number, row in enumerate(rows):
        found[number, : len(row)] = row
    return found


@pytest.fixture
def lists() -> Lists:
    matched = padded([[0.9, 0.8, 0.1], [0.6, 0.45], [0.45, 0.3], [0.7, 0.4]])
    right = np.zeros((4, CONTEXT), dtype=np.bool_)
    right[[0, 1, 2, 3], [0, 0, 0, 1]] = True
    return Lists(matched, right, padded([[0.6], [0.4], [0.3], [0.2]]), np.array([4, 4, 6, 8]))


def test_errors_and_bins_match_figures_worked_out_by_hand(lists: Lists) -> None:
    """First hits: four with an answer, three of them right, and four without.

    Half of eight are expected to be right, three are: |4 - 3| / 8. Verdicts of the flat threshold:
    0.9, 0.6, 0.45, 0.7, 0.6 and 0.4 are called right, three are: 3 / 8.
    """
    found = reliability(HALF, lists, 0)
    assert found.first_hits.ece == 0.125
    assert [one.hits for one in found.first_hits.bins] == [0, 0, 0, 0, 0, 8] + [0] * 4 or [
        one.hits for one in found.first_hits.bins
    ] == [0, 0, 0, 0, 8, 0] + [0] * 4
    assert found.first_hits_flat_threshold.ece == 0.375
    assert sum(one.hits for one in found.hits.bins) == 13
    assert found.first_hits.ece_low <= 0.125 <= found.first_hits.ece_high
    assert (found.queries, found.images, found.fitted_queries) == (4, 3, 7)


def test_shares_of_lost_and_recognised_match_figures_worked_out_by_hand(lists: Lists) -> None:
    """Right answers: the third query is weak (0.45), the fourth answer is 0.3 below its best.

    Without an answer, only 0.6 is kept. A flat threshold of 0.4 keeps all right answers, and the
    best hits 0.6 and 0.4 of queries without one.
    """
    found = reliability(HALF, lists, 0)
    assert (found.good.right_lost, found.good.nothing) == (50.0, 75.0)
    assert (found.flat_threshold.right_lost, found.flat_threshold.nothing) == (0.0, 50.0)


def test_the_interval_depends_on_the_seed_alone(lists: Lists) -> None:
    assert reliability(HALF, lists, 3) == reliability(HALF, lists, 3)
