"""Paired differences of recall, compared with values computed by hand and with exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from mmindex.core.errors import InternalError
from mmindex.evaluate.paired import mcnemar, most_changed, recall_changes


@pytest.mark.parametrize(
    ("one", "other"), [(0, 0), (1, 0), (3, 3), (0, 8), (5, 15), (40, 61), (300, 301), (2, 900)]
)
def test_mcnemar_is_the_exact_binomial_test(one: int, other: int) -> None:
    count = one + other
    tail = sum(comb(count, hits) for hits in range(min(one, other) + 1))
    exact = min(Fraction(1), Fraction(2 * tail, 2**count))
    assert mcnemar(one, other) == pytest.approx(float(exact), rel=1e-9)
    assert mcnemar(one, other) == mcnemar(other, one)


def test_recall_by_hand() -> None:
    here, there = np.array([1, 1, 3, 20]), np.array([1, 2, 9, 4])
    first, fifth, tenth = recall_changes(here, there, np.arange(4), seed=0)
    assert (first.here, first.there, first.difference) == (50.0, 25.0, 25.0)
    assert (first.only_here, first.only_there, first.p) == (1, 0, 1.0)
    assert (fifth.here, fifth.there, fifth.only_here, fifth.only_there) == (75.0, 75.0, 1, 1)
    assert (tenth.here, tenth.there, tenth.difference) == (75.0, 100.0, -25.0)


def test_the_same_ranks_differ_by_nothing() -> None:
    ranks = np.random.default_rng(0).integers(1, 30, 100)
    for change in recall_changes(ranks, ranks, np.arange(100), seed=0):
        assert (change.low, change.difference, change.high, change.p) == (0.0, 0.0, 0.0, 1.0)


def test_pairs_have_a_narrower_interval_than_two_independent_figures() -> None:
    """Two models fail on the same hard queries: 50 % and 55 %, and only 5 % differ."""
    there = np.where(np.arange(1_000) % 2 == 0, 1, 99)
    here = there.copy()
    here[1:100:2] = 1
    change = recall_changes(here, there, np.arange(1_000), seed=0)[0]
    assert change.difference == pytest.approx(5.0)
    # The standard error of a share of 0.05 is 0.69 points; of two independent halves, 2.2.
    assert change.low == pytest.approx(5 - 1.96 * 0.69, abs=0.3)
    assert change.high == pytest.approx(5 + 1.96 * 0.69, abs=0.3)


def test_captions_of_one_image_stay_together() -> None:
    here, there = np.ones(200, np.int64), np.where(np.arange(200) % 2 == 0, 1, 99)
    images = np.arange(200)
    single = recall_changes(here, there, images, seed=0)[0]
    five = (np.repeat(values, 5) for values in (here, there, images))
    grouped = recall_changes(*five, seed=0)[0]
    assert (grouped.low, grouped.high) == (single.low, single.high)


def test_the_queries_that_changed_most_are_those_of_the_largest_ratio() -> None:
    here, there = np.array([1, 50, 2, 7, 100]), np.array([9, 45, 2, 1, 1_000])
    better, worse = most_changed(here, there, np.arange(5), 2)
    assert (better.tolist(), worse.tolist()) == ([4, 0], [3, 1])
    better, worse = most_changed(here, there, np.array([7, 3, 2, 3, 7]), 2)  # one per image
    assert (better.tolist(), worse.tolist()) == ([4], [3])
    nothing = most_changed(here, here, np.arange(5), 2)
    assert [part.tolist() for part in nothing] == [[], []]


def test_p_values_too_small_for_a_number_are_not_shown_as_zero() -> None:
    here, there = np.ones(3_000, np.int64), np.full(3_000, 99)
    change = recall_changes(here, there, np.arange(3_000), seed=0, replicates=5)[0]
    assert change.shown_p == "<1e-99"


def test_no_queries_are_a_bug() -> None:
    nothing = np.empty(0, np.int64)
    with pytest.raises(InternalError):
        recall_changes(nothing, nothing, nothing, seed=0)
