"""The input of a fit."""

from __future__ import annotations

import numpy as np
import pytest

from mmindex.adaptation.pairs import LEAST_IMAGES, make_pairs
from mmindex.core.errors import DataError
from support.adapting import unit


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, 8))).astype(np.float32)


def test_captions_are_with_their_images_and_images_without_one_are_left_out():
    images, texts = vectors(60), vectors(120, 1)
    owner = np.random.default_rng(2).permutation(np.repeat(np.arange(55), 3))[:120]
    pairs = make_pairs(images, texts, owner)
    known = np.unique(owner)
    assert len(pairs) == len(known)
    for place, image in enumerate(known):
        rows = pairs.captions_of(np.array([place]))
        assert np.array_equal(pairs.texts[rows], texts[owner == image].astype(np.float16))
        assert np.array_equal(pairs.images[place], images[image].astype(np.float16))


def test_a_selection_of_images_includes_all_their_captions():
    pairs = make_pairs(vectors(60), vectors(120, 1), np.repeat(np.arange(60), 2))
    part = pairs.only(np.array([7, 3]))
    assert np.array_equal(part.texts, pairs.texts[[14, 15, 6, 7]])


def test_too_few_images_are_refused_with_the_limit():
    few = LEAST_IMAGES - 1
    with pytest.raises(
        DataError, match=f"too few images with captions: {few}, at least {LEAST_IMAGES}"
    ):
        make_pairs(vectors(few), vectors(few, 1), np.arange(few))
    with pytest.raises(DataError, match="captions: 0, at least"):
        make_pairs(vectors(5), vectors(0), np.arange(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_vectors_without_unit_length_are_refused(bad: float):
    images = vectors(60)
    images[3] = bad
    with pytest.raises(DataError, match="1 of 60 image vectors are not finite"):
        make_pairs(images, vectors(60, 1), np.arange(60))
