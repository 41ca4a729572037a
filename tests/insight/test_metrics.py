"""Metrics compared with answers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmindex.core.errors import DataError
from mmindex.insight.metrics import fit_threshold, label_report, pair_report, roc_auc


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def bools(text: str) -> np.ndarray:
    return np.array([char == "1" for char in text])


def test_a_pair_report_computed_by_hand():
    # predicted at 0.5: 1    1    1    0    0    0
    labels = bools("110100")
    scores = floats(0.9, 0.8, 0.6, 0.4, 0.3, 0.1)
    report = pair_report(labels, scores, 0.5)
    assert (report.pairs, report.matched) == (6, 3)
    assert report.accuracy == pytest.approx(4 / 6)
    assert report.precision == pytest.approx(2 / 3)
    assert report.recall == pytest.approx(2 / 3)
    assert report.f1 == pytest.approx(2 / 3)
    # Of 9 (matched, unmatched) pairs, one is in the wrong order: 0.4 and 0.6.
    assert report.roc_auc == pytest.approx(8 / 9)


def test_a_score_at_the_threshold_is_a_match():
    assert pair_report(bools("1"), floats(0.5), 0.5).accuracy == 1.0


def test_equal_scores_count_half():
    assert roc_auc(bools("10"), floats(0.3, 0.3)) == 0.5
    # pairs: (.5 > .3), (.5 = .5), (.2 < .3), (.2 < .5): 1.5 of 4
    assert roc_auc(bools("1100"), floats(0.5, 0.2, 0.3, 0.5)) == 1.5 / 4


def test_undefined_measures_are_none():
    none_told = pair_report(bools("10"), floats(0.1, 0.2), 0.9)
    assert none_told.precision is None
    assert none_told.recall == 0.0
    assert none_told.f1 == 0.0
    one_kind = pair_report(bools("00"), floats(0.1, 0.2), 0.9)
    assert (one_kind.recall, one_kind.f1, one_kind.roc_auc) == (None, None, None)
    with pytest.raises(DataError):
        pair_report(bools(""), floats(), 0.5)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_the_area_is_the_share_of_couples_in_the_right_order(pairs):
    labels = np.array([label for label, _ in pairs])
    scores = np.array([score / 7 for _, score in pairs])
    couples = [(a, b) for a in scores[labels] for b in scores[~labels]]
    area = roc_auc(labels, scores)
    if not couples:
        assert area is None
    else:
        wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in couples)
        assert area == pytest.approx(wins / len(couples))


def test_the_threshold_lies_in_the_middle_of_the_gap():
    fitted = fit_threshold(floats(0.6, 0.8), floats(0.1, 0.2))
    assert fitted.value == pytest.approx(0.4)
    assert fitted.balanced_accuracy == 1.0
    assert (fitted.matched, fitted.unmatched) == (2, 2)


def test_the_threshold_is_not_biased_by_many_pairs_of_one_kind():
    """Plain accuracy would reject all pairs here."""
    fitted = fit_threshold(floats(0.5), floats(*np.linspace(0.0, 0.49, 99), 0.9))
    assert fitted.value == pytest.approx(0.495)
    assert fitted.balanced_accuracy == pytest.approx((1 + 0.99) / 2)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=30),
    st.lists(st.integers(0, 30), min_size=1, max_size=30),
)
def test_no_other_threshold_is_better(matched, unmatched):
    yes, no = np.array(matched) / 30, np.array(unmatched) / 30
    fitted = fit_threshold(yes, no)
    every = [((yes >= cut).mean() + (no < cut).mean()) / 2 for cut in np.linspace(-0.1, 1.1, 800)]
    assert fitted.balanced_accuracy == pytest.approx(max(every))
    reached = ((yes >= fitted.value).mean() + (no < fitted.value).mean()) / 2
    assert reached == pytest.approx(fitted.balanced_accuracy)


def test_a_threshold_needs_both_kinds():
    with pytest.raises(DataError, match="0 unmatched"):
        fit_threshold(floats(0.5), floats())


def test_a_label_report_computed_by_hand():
    #   truth a a a b b c ; told a a b b a a (second choices c b a a b c)
    truth = np.array([0, 0, 0, 1, 1, 2])
    ranked = np.array([[0, 2], [0, 1], [1, 0], [1, 0], [0, 1], [0, 2]])
    report = label_report(("a", "b", "c", "d"), truth, ranked)
    assert report.items == 6
    assert report.accuracy == pytest.approx(3 / 6)
    assert report.top_k == 2
    assert report.top_k_accuracy == 1.0
    assert report.confusion.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    a, b, c, d = report.classes
    assert (a.support, a.precision, a.recall) == (3, 2 / 4, 2 / 3)
    assert a.f1 == pytest.approx(2 * 2 / (4 + 3))
    assert (b.support, b.precision, b.recall, b.f1) == (2, 1 / 2, 1 / 2, 1 / 2)
    assert (c.support, c.precision, c.recall, c.f1) == (1, None, 0.0, 0.0)
    assert (d.support, d.precision, d.recall, d.f1) == (0, None, None, None)
    # d neither occurs nor is predicted, so it has no F1.
    assert report.macro_f1 == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)
