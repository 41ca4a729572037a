"""Ranks and gains compared with answers computed by hand."""

from __future__ import annotations

import numpy as np

from mmindex.adaptation.measure import Figures, Ranks, gain, rank
from mmindex.adaptation.pairs import Pairs
from mmindex.models.adapted import Affine


def ranks(said: list[int], seen: list[int], owner: list[int]) -> Ranks:
    return Ranks(np.array(said), np.array(seen), np.array(owner))


def test_ranks_are_those_of_the_best_correct_answer():
    images = np.eye(3, dtype=np.float16)
    # The first image's second caption is nearer to the second image.
    texts = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float16)
    found = rank(Pairs(images, texts, np.array([2, 1, 1])), None)
    assert found.text_to_image.tolist() == [1, 2, 1, 1]
    assert found.image_to_text.tolist() == [1, 1, 1]
    assert found.owner.tolist() == [0, 0, 1, 2]


def test_maps_are_applied_to_both_sides():
    images, texts = np.eye(3, dtype=np.float16), np.roll(np.eye(3, dtype=np.float16), 1, axis=1)
    pairs = Pairs(images, texts, np.ones(3, dtype=np.int64))
    turn = Affine(np.roll(np.eye(3, dtype=np.float32), 1, axis=0), np.zeros(3, dtype=np.float32))
    keep = Affine(np.eye(3, dtype=np.float32), np.zeros(3, dtype=np.float32))
    assert max(rank(pairs, None).text_to_image) > 1
    assert rank(pairs, (turn, keep)).text_to_image.tolist() == [1, 1, 1]


def test_joined_galleries_keep_their_images_separate():
    one = ranks([1, 2], [1], [0, 0])
    both = Ranks.joined([one, ranks([3], [4], [0])])
    assert both.text_to_image.tolist() == [1, 2, 3]
    assert both.owner.tolist() == [0, 0, 1]
    assert both.image_to_text.tolist() == [1, 4]


def test_a_model_gains_nothing_over_itself():
    same = ranks([1, 7, 20] * 20, [2, 1, 30] * 20, list(range(60)))
    found = gain(same, same, 0)
    assert (found.both.value, found.both.low, found.both.high) == (0, 0, 0)
    assert not found.real


def test_a_gain_in_one_direction_does_not_pay_for_a_loss_in_the_other():
    images = list(range(100))
    before = ranks([20] * 100, [1] * 100, images)
    after = ranks([1] * 100, [6] * 100, images)
    found = gain(before, after, 0)
    assert found.text_to_image.value == 100
    assert found.both.low > 0
    assert found.image_to_text.high < 0
    assert not found.real


def test_figures_have_intervals_around_them():
    figures = Figures.of(ranks([1, 5, 10, 11] * 10, [1] * 40, list(range(40))), 0)
    assert [round(one.value) for one in figures.text_to_image] == [25, 50, 75]
    assert all(one.low < one.value < one.high for one in figures.text_to_image)
    assert [one.value for one in figures.image_to_text] == [100, 100, 100]
