"""Calibrations are fitted to captions of any corpus and measured on other captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmindex.core.modality import Modality
from mmindex.evaluate import fit as module
from mmindex.evaluate.corpus import load_corpus
from mmindex.evaluate.fit import calibrate, fit, fit_logistic
from mmindex.evaluate.lists import Lists, score_lists
from mmindex.evaluate.reliability import reliability
from mmindex.evaluate.stage import evaluate
from mmindex.search.calibration import CONTEXT, read_calibrations
from mmindex.search.searcher import Searcher
from mmindex.store.snapshot import Snapshot
from support.calibrating import CONFIG, DIM, calibrated, captioned, store_of, unit

IMAGE, TEXT = Modality.IMAGE, Modality.TEXT


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return captioned(tmp_path_factory.mktemp("store") / "s", 600)


def lists_of(snapshot: Snapshot, asked: Modality, to: Modality, *, fitting: bool) -> Lists:
    searcher = Searcher(snapshot, to)
    found = score_lists(searcher, load_corpus(snapshot), asked, fitting=fitting, seed=0)
    assert found is not None
    return found


def test_both_directions_are_calibrated_and_errors_on_held_out_queries_are_small(
    snapshot: Snapshot,
) -> None:
    found = calibrate(snapshot, CONFIG)
    assert [(one.asked, one.to) for one in found] == [(TEXT, IMAGE), (IMAGE, TEXT)]
    for one in found:
        measured = reliability(one, lists_of(snapshot, one.asked, one.to, fitting=False), 0)
        assert measured.hits.ece < 0.05
        assert measured.first_hits.ece < 0.1
        assert measured.first_hits.ece < measured.first_hits_flat_threshold.ece
        assert sum(one.hits for one in measured.first_hits.bins) == 2 * measured.queries


def test_no_image_is_in_both_halves(snapshot: Snapshot) -> None:
    halves = [lists_of(snapshot, TEXT, IMAGE, fitting=fitting).images for fitting in (True, False)]
    assert not np.intersect1d(*halves).size
    assert len(np.union1d(*halves)) == 600


def test_queries_without_an_answer_lose_it_and_everything_like_it(snapshot: Snapshot) -> None:
    lists = lists_of(snapshot, TEXT, IMAGE, fitting=True)
    images = load_corpus(snapshot).images.vectors.take(np.arange(600)).astype(np.float64)
    corpus = load_corpus(snapshot)
    assert corpus.captions is not None
    owners = corpus.images.id_of_row[corpus.image_of_caption]
    rows = np.flatnonzero(owners % 2 == 0)
    texts = corpus.captions.vectors.take(corpus.captions.id_of_row[rows]).astype(np.float64)
    likeness = images[owners[rows]] @ images.T
    limit = np.quantile(likeness, 0.95, axis=1)
    expected = np.where(likeness < limit[:, None], texts @ images.T, -np.inf)
    expected = -np.sort(-expected, axis=1)[:, :CONTEXT]
    np.testing.assert_allclose(lists.unmatched, expected, atol=1e-6)
    assert (lists.right.sum(axis=1) <= 1).all()


@pytest.mark.parametrize("asked", [TEXT, IMAGE])
def test_a_second_fit_gives_the_same_object(snapshot: Snapshot, asked: Modality) -> None:
    first, second = (calibrated(snapshot).manifest.objects[-1] for _ in range(2))
    assert first == second
    known = {one.asked: one for one in read_calibrations(calibrated(snapshot))}
    assert known[asked] == next(one for one in calibrate(snapshot, CONFIG) if one.asked is asked)


@pytest.mark.parametrize("images", [1, 2, 3, 20, 48])
def test_small_corpora_have_no_calibration(tmp_path: Path, images: int) -> None:
    assert calibrate(captioned(tmp_path / "s", images), CONFIG) == ()


def test_a_corpus_without_captions_has_no_calibration(tmp_path: Path) -> None:
    nothing = np.empty((0, DIM), np.float32)
    snapshot = store_of(
        tmp_path / "s", unit(np.random.default_rng(0).normal(size=(80, DIM))),
        np.empty(0, np.int64), nothing,
    )  # fmt: skip
    assert calibrate(snapshot, CONFIG) == ()
    assert evaluate(snapshot, CONFIG).reliability is None


def test_equal_vectors_are_no_error(tmp_path: Path) -> None:
    same = np.repeat(unit(np.ones((1, DIM))), 100, axis=0)
    snapshot = store_of(tmp_path / "s", same, np.arange(100), same)
    assert calibrate(snapshot, CONFIG) == ()  # the right answer is rarely among the hits


@pytest.mark.parametrize("shown", [1, 10, CONTEXT])
def test_equal_scores_give_finite_numbers_and_no_weak_hits(shown: int) -> None:
    scores = np.full((60, CONTEXT), -np.inf)
    scores[:, :shown] = 0.5
    right = np.zeros(scores.shape, dtype=np.bool_)
    right[:, 0] = True
    found = fit(Lists(scores, right, scores, np.arange(60)), TEXT, IMAGE)
    assert found is not None
    assert found.answered[1] == found.chosen[1] == 0.0
    probabilities = found.probabilities(scores, scores)
    assert np.isfinite(probabilities).all()
    assert probabilities[0, 0] == pytest.approx(0.5 / shown, rel=0.1)
    assert not found.weak(scores, scores)[:, :shown].any()


def test_queries_of_which_nothing_is_left_are_no_error() -> None:
    scores = np.sort(np.random.default_rng(0).random((60, CONTEXT)), axis=1)[:, ::-1]
    right = np.zeros(scores.shape, dtype=np.bool_)
    right[:, 0] = True
    found = fit(Lists(scores, right, np.full(scores.shape, -np.inf), np.arange(60)), TEXT, IMAGE)
    assert found is not None
    assert np.isfinite(found.probabilities(scores, scores)).all()


def test_a_model_that_finds_nothing_has_no_calibration(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pictures, texts = (unit(rng.normal(size=(400, DIM))) for _ in range(2))
    snapshot = store_of(tmp_path / "s", pictures, np.arange(400), texts)
    assert calibrate(snapshot, CONFIG) == ()


def test_at_most_a_tenth_of_right_answers_is_lost_in_the_fit(snapshot: Snapshot) -> None:
    for asked, to in module.DIRECTIONS:
        lists = lists_of(snapshot, asked, to, fitting=True)
        found = fit(lists, asked, to)
        assert found is not None
        shown = lists.matched[:, :10]
        right = lists.right[:, :10]
        lost = (right & found.weak(shown, lists.matched)).sum() / right.sum()
        assert lost <= 0.11  # of rounding the threshold


def test_a_logistic_fit_recovers_the_curve_that_drew_the_labels() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, size=200_000)
    y = (rng.random(len(x)) < 1 / (1 + np.exp(4.0 - 1.5 * x))).astype(np.float64)
    intercept, slope = fit_logistic(x, y)
    assert intercept == pytest.approx(-4.0, abs=0.1)
    assert slope == pytest.approx(1.5, abs=0.03)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([0.0, 1.0], [0.0, 1.0]),  # separated
        ([0.0, 0.0, 0.0], [0.0, 1.0, 1.0]),  # all equal
        ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]),  # one label
        ([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 0.0, 0.0]),  # higher is worse
        ([-1e-12, 1e-12], [0.0, 1.0]),
        ([0.5], [1.0]),
    ],
)
def test_a_logistic_fit_of_anything_is_finite_and_never_falls(
    x: list[float], y: list[float]
) -> None:
    intercept, slope = fit_logistic(np.array(x), np.array(y))
    assert np.isfinite([intercept, slope]).all()
    assert slope >= 0
