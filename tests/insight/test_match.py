"""Pairs: the fitted threshold, and bad rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.insight.match import corpus_threshold, judge, score_pair, score_pairs
from mmindex.insight.pairs import Pair
from mmindex.search.vectorize import Vectorizer
from mmindex.store.snapshot import open_snapshot
from support.images import COLOURS, png, write_pngs
from support.models import FakeEncoder, no_model
from support.stores import Side, captions_table, image_store, images_table, key_of, make_store


@pytest.fixture
def vectorizer(tmp_path: Path) -> Vectorizer:
    """Forty images of five colours, each with a caption that names its colour."""
    paths = write_pngs(tmp_path / "p", 40)
    images = {f"folder/p/{path.name}": path for path in paths}
    captions = [(name, f"a {COLOURS[n % 5]} thing, {n}") for n, name in enumerate(images)]
    image_store(tmp_path / "store", images, captions, FakeEncoder())
    return Vectorizer(open_snapshot(tmp_path / "store"), FakeEncoder)


def test_the_threshold_separates_the_pairs_of_the_corpus(vectorizer: Vectorizer) -> None:
    """It uses only stored vectors, and is the same each time."""
    fitted = corpus_threshold(Vectorizer(vectorizer.snapshot, no_model).snapshot)
    assert fitted == corpus_threshold(vectorizer.snapshot)
    assert fitted.matched == 40
    assert 30 <= fitted.unmatched <= 40  # some captions were paired with their own image
    # One in five unmatched pairs has the right colour by chance; no threshold can reject these.
    assert 0.8 < fitted.balanced_accuracy < 1
    assert 0.3 < fitted.value < 0.95


def test_another_seed_draws_other_pairs(vectorizer: Vectorizer) -> None:
    first = corpus_threshold(vectorizer.snapshot, seed=0, pairs=20)
    second = corpus_threshold(vectorizer.snapshot, seed=1, pairs=20)
    assert first != second


def test_no_unmatched_pair_is_one_that_the_corpus_lists(tmp_path: Path) -> None:
    """Two images with the same caption, and one image with two names, all match."""
    same, other = key_of("same"), key_of("other")
    images = images_table([("a", same, "/a"), ("b", same, "/b"), ("c", other, "/c")])
    captions = captions_table([("a", "x"), ("b", "y"), ("c", "x"), ("c", "y")])
    vectors = np.eye(4, dtype=np.float32)
    sides = {
        "image": Side([same, other], vectors[:2]),
        "text": Side([key_of("x"), key_of("y")], vectors[2:]),
    }
    make_store(tmp_path / "s", images, captions, sides, FakeEncoder().info)
    with pytest.raises(NoInputError, match="every caption belongs to every image"):
        corpus_threshold(open_snapshot(tmp_path / "s"))


def test_a_corpus_without_captions_says_what_to_do(tmp_path: Path) -> None:
    [path] = write_pngs(tmp_path / "p", 1)
    image_store(tmp_path / "store", {"a": path}, [], FakeEncoder())
    with pytest.raises(NoInputError, match="no captions") as error:
        corpus_threshold(open_snapshot(tmp_path / "store"))
    assert "`threshold`" in error.value.hint


def test_a_pair_is_scored_by_its_cosine(vectorizer: Vectorizer, tmp_path: Path) -> None:
    new = tmp_path / "new.png"
    new.write_bytes(png(101))  # green
    threshold = corpus_threshold(vectorizer.snapshot).value
    assert score_pair(vectorizer, str(new), "a green thing") > threshold
    assert score_pair(vectorizer, str(new), "a red thing") < threshold
    assert score_pair(vectorizer, "folder/p/00002.png", "a blue thing") > threshold


def test_many_pairs_are_scored_as_one_by_one_and_bad_rows_affect_only_themselves(
    vectorizer: Vectorizer, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"<html>")
    pairs = [
        Pair("folder/p/00002.png", "a blue thing", True),
        Pair(str(bad), "a blue thing", True),
        Pair("nowhere.png", "a blue thing", True),
        Pair("folder/p/00002.png", "a red thing", False),
    ]
    scored = score_pairs(vectorizer, pairs)
    assert [one.pair for one in scored] == pairs
    assert scored[0].score == pytest.approx(
        score_pair(vectorizer, "folder/p/00002.png", "a blue thing"), abs=1e-6
    )
    assert "not_an_image" in (scored[1].error or "")
    assert "no such file" in (scored[2].error or "")
    report = judge(scored, 0.6)
    assert (report.pairs, report.accuracy, report.f1, report.roc_auc) == (2, 1.0, 1.0, 1.0)
    with pytest.raises(DataError, match="no pair"):
        judge(scored[1:3], 0.6)


def test_images_and_texts_are_encoded_once(vectorizer: Vectorizer, tmp_path: Path) -> None:
    encoder = FakeEncoder()
    new = tmp_path / "new.png"
    new.write_bytes(png(77))
    pairs = [Pair(str(new), f"text {n % 3}", True) for n in range(30)]
    score_pairs(Vectorizer(vectorizer.snapshot, lambda: encoder), pairs)
    assert encoder.image_batches == [1]
    assert encoder.text_batches == [3]


def test_an_empty_text_is_not_a_text(vectorizer: Vectorizer) -> None:
    """Alone, it is an error; in a list, only its own pair fails."""
    with pytest.raises(UsageError, match="the text is empty"):
        score_pair(vectorizer, "folder/p/00001.png", "  \t")
    [one] = score_pairs(vectorizer, [Pair("folder/p/00001.png", " ", True)])
    assert (one.score, one.error is not None) == (None, True)
