"""Bootstrap intervals: seeded, by image, and of the right width."""

from __future__ import annotations

import numpy as np
import pytest

from mmindex.core.errors import InternalError
from mmindex.evaluate.bootstrap import Interval, recall_intervals


def test_the_value_is_the_recall_and_lies_within_its_interval() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 20, 400)
    for interval in recall_intervals(ranks, np.arange(400), seed=0):
        assert interval.value == 100 * np.count_nonzero(ranks <= interval.k) / 400
        assert interval.low <= interval.value <= interval.high


def test_the_same_seed_gives_the_same_interval() -> None:
    ranks = np.random.default_rng(0).integers(1, 20, 100)
    assert recall_intervals(ranks, np.arange(100), 1) == recall_intervals(ranks, np.arange(100), 1)
    assert recall_intervals(ranks, np.arange(100), 1) != recall_intervals(ranks, np.arange(100), 2)


def test_independent_queries_get_the_interval_of_the_binomial() -> None:
    """One query per image, of which half of 1,000 hit: 50 ± 1.96 * 1.58 points."""
    ranks = np.where(np.arange(1_000) % 2 == 0, 1, 99)
    first = recall_intervals(ranks, np.arange(1_000), seed=0)[0]
    assert first.value == 50.0
    assert first.low == pytest.approx(50 - 3.1, abs=0.4)
    assert first.high == pytest.approx(50 + 3.1, abs=0.4)


def test_captions_of_one_image_stay_together() -> None:
    """Five captions that always agree add no information: the interval has the same width."""
    ranks = np.where(np.arange(200) % 2 == 0, 1, 99)
    single = recall_intervals(ranks, np.arange(200), seed=0)[0]
    grouped = recall_intervals(np.repeat(ranks, 5), np.repeat(np.arange(200), 5), seed=0)[0]
    apart = recall_intervals(np.repeat(ranks, 5), np.arange(1_000), seed=0)[0]
    assert grouped == single
    assert apart.high - apart.low < 0.6 * (grouped.high - grouped.low)


def test_images_with_many_captions_weigh_as_many_queries() -> None:
    """Recall is computed over queries, in any order and whichever image they belong to."""
    ranks = np.array([1, 1, 1, 99])
    shuffled = recall_intervals(ranks[[3, 0, 1, 2]], np.array([9, 4, 4, 4]), seed=0)
    assert shuffled[0].value == 75.0
    assert (shuffled[0].low, shuffled[0].high) == (0.0, 100.0)


def test_if_every_query_succeeds_the_interval_has_no_width() -> None:
    assert recall_intervals(np.ones(50, dtype=np.int64), np.arange(50), 0)[0] == Interval(
        1, 100.0, 100.0, 100.0
    )


def test_nothing_to_draw_from_is_a_bug() -> None:
    with pytest.raises(InternalError):
        recall_intervals(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), 0)
