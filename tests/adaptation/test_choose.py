"""The choice of settings: the unchanged model is a candidate, and tests use unseen images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmindex.adaptation import choose as module
from mmindex.adaptation.choose import Split, choose, fit
from mmindex.adaptation.correlate import Noise
from mmindex.adaptation.measure import rank
from mmindex.adaptation.pairs import Pairs
from support.adapting import related_pairs, unrelated

EVEN = Noise.of(None, None, 32)


def test_a_relation_is_found_and_holds_for_new_images():
    every = related_pairs(400)
    pairs, new = every.only(np.arange(300)), every.only(np.arange(300, 400))
    choice = choose(pairs, EVEN, 0)
    assert choice.gain.real
    assert choice.gain.both.low > 20
    assert choice.tested == 300
    assert choice.gallery == 60
    maps = fit(pairs, EVEN, choice, 0)
    after = rank(new, (maps.image, maps.text)).score
    assert after > rank(new, None).score + 20
    assert 1 <= maps.logit_scale <= 100


@pytest.mark.parametrize("seed", range(3))
def test_unrelated_captions_keep_the_model(seed: int):
    assert not choose(unrelated(related_pairs(150), seed), EVEN, seed).gain.real


def test_equal_input_results_in_equal_maps_and_threads_are_restored():
    pairs = related_pairs(120)
    before = torch.get_num_threads()
    one, other = (fit(pairs, EVEN, choose(pairs, EVEN, 3), 3) for _ in range(2))
    assert one.image.weight.tobytes() == other.image.weight.tobytes()
    assert one.text.bias.tobytes() == other.text.bias.tobytes()
    assert one.logit_scale == other.logit_scale
    assert torch.get_num_threads() == before


def test_every_image_is_in_one_fold_and_every_fold_tests_once():
    split = Split.of(103, 0)
    assert sorted(np.concatenate(split.folds).tolist()) == list(range(103))
    assert sorted(test for test, _ in split.rounds) == [0, 1, 2, 3, 4]
    assert all(test != chooser for test, chooser in split.rounds)


def test_a_large_corpus_has_one_round_with_bounded_galleries():
    split = Split.of(100_000, 0)
    assert [len(fold) for fold in split.folds] == [2_000, 500, 97_500]
    assert split.rounds == ((0, 1),)


def test_a_large_corpus_is_adapted_in_one_round(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_ONE_ROUND", 200)
    choice = choose(related_pairs(400), EVEN, 0)
    assert choice.gain.real
    assert choice.tested == choice.gallery == 80


@pytest.mark.parametrize("side", ["images", "texts", "both"])
def test_equal_vectors_keep_the_model(side: str):
    pairs = related_pairs(60)
    images, texts = pairs.images, pairs.texts
    if side != "texts":
        images = np.repeat(images[:1], len(images), axis=0)
    if side != "images":
        texts = np.repeat(texts[:1], len(texts), axis=0)
    assert not choose(Pairs(images, texts, pairs.counts), EVEN, 0).gain.real
