"""Chart geometry: bins that add up to recall, axes that contain their values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmindex.evaluate.recall import summarize
from mmindex.pages.charts import compact, log_axis, percent_axis, rank_bins


def test_the_first_bins_add_up_to_recall_and_all_to_everything() -> None:
    ranks = np.random.default_rng(0).integers(1, 3_000, 5_000)
    ranks[:900] = 1
    bins = rank_bins(ranks, 3_000)
    recall = summarize(ranks)
    assert recall is not None
    assert [one.label for one in bins][:3] == ["1", "2–5", "6–10"]
    assert bins[-1].label == "over 1,000"
    reached = [one.up_to_here for one in bins]
    assert reached[:3] == pytest.approx([recall.r1, recall.r5, recall.r10])
    assert sum(one.count for one in bins) == 5_000
    assert sum(one.share for one in bins) == pytest.approx(100)


def test_bins_beyond_the_gallery_are_left_out() -> None:
    assert [one.label for one in rank_bins(np.array([1, 7]), 7)] == ["1", "2–5", "6–10"]


@given(st.lists(st.floats(0.01, 1e8), min_size=1, max_size=20))
def test_a_log_axis_holds_every_value_and_has_few_ticks_inside(values: list[float]) -> None:
    axis = log_axis(values)
    assert all(-0.1 <= axis.at(value) <= 100.1 for value in values)
    assert 2 <= len(axis.ticks) <= 6
    assert all(0 <= tick.at <= 100 for tick in axis.ticks)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_a_percent_axis_holds_every_value_and_stays_within_0_and_100(values: list[float]) -> None:
    axis = percent_axis(values)
    assert 0 <= axis.low < axis.high <= 100
    assert all(-0.001 <= axis.at(value) <= 100.001 for value in values)
    assert 3 <= len(axis.ticks) <= 8
    assert axis.at(axis.high) == 0


def test_numbers_on_an_axis_are_short() -> None:
    assert [compact(value) for value in (0.5, 850, 2_000, 15_000, 2e6)] == [
        *("0.5", "850", "2k", "15k", "2M")
    ]
