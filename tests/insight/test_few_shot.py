"""Labels learned from a few images: the methods, and the choice by cross-validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmindex.insight import classify
from mmindex.insight.classify import Cache, Classifier
from mmindex.insight.few_shot import (
    METHODS,
    ZERO_SHOT,
    Examples,
    Trial,
    _folds,
    learn,
    probe,
    tip_adapter,
)

DIM, LABELS = 32, 6


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def world(shots: int, *, noise: float, seed: int = 0) -> tuple[Classifier, Examples]:
    """Return text vectors at the centres of the labels, and images around them."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(LABELS, DIM)))
    labels = np.repeat(np.arange(LABELS), shots)
    images = unit(centres[labels] + noise * rng.normal(size=(len(labels), DIM)))
    return Classifier(tuple("abcdef"), centres, 20.0), Examples(images, labels)


def swapped(zero: Classifier) -> Classifier:
    """Return a classifier whose texts belong to other labels."""
    return replace(zero, vectors=np.roll(zero.vectors, 1, axis=0))


def accuracy(classifier: Classifier, examples: Examples) -> float:
    return float((classifier.logits(examples.images).argmax(axis=1) == examples.labels).mean())


@pytest.mark.parametrize("shots", [1, 2, 8])
def test_texts_that_are_right_stay(shots: int) -> None:
    zero, examples = world(shots, noise=0.1)
    found = learn(zero, examples, METHODS)
    assert found.classifier is zero
    assert found.chosen.method == ZERO_SHOT
    assert [one.method for one in found.trials] == [ZERO_SHOT, "probe", "tip-adapter"]


def test_images_correct_texts_that_are_wrong() -> None:
    zero, examples = world(8, noise=0.1)
    _, unseen = world(20, noise=0.1, seed=0)
    wrong = swapped(zero)
    found = learn(wrong, examples, METHODS)
    assert found.chosen.method != ZERO_SHOT
    assert accuracy(wrong, unseen) < 0.1
    assert accuracy(found.classifier, unseen) > 0.9


def test_one_image_of_each_label_is_not_enough_to_trust_them() -> None:
    """The label of the image that is left out has no image."""
    zero, examples = world(1, noise=2.0)
    assert learn(zero, examples, METHODS).classifier is zero


def test_the_same_images_give_the_same_labels() -> None:
    zero, examples = world(4, noise=0.1)
    first, second = (learn(swapped(zero), examples, METHODS).classifier for _ in range(2))
    assert np.array_equal(first.logits(examples.images), second.logits(examples.images))


def test_a_probe_starts_at_the_texts() -> None:
    zero, examples = world(4, noise=0.5)
    found = list(probe(zero, examples))
    moved = [float(np.linalg.norm(one.vectors - zero.vectors)) for one in found]
    assert moved == sorted(moved)
    assert moved[0] < 0.1 < moved[-1]


@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_the_cache_adds_the_mean_similarity_of_each_label(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify, "_SIMILARITIES", at_once)
    images = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    cache = Cache(images, np.array([0, 0, 2]), weight=2.0, sharpness=5.0)
    logits = cache.logits(np.array([[1.0, 0.0], [0.0, 1.0]]), 3)
    assert logits[0] == pytest.approx([1 + np.exp(-5.0), 0.0, 2 * np.exp(-5 * 0.4)])
    assert logits[1] == pytest.approx([1 + np.exp(-5.0), 0.0, 2 * np.exp(-5 * 0.2)])


def test_settings_come_in_a_fixed_order() -> None:
    zero, examples = world(2, noise=0.5)
    one, two = ([c.cache for c in tip_adapter(zero, part)] for part in (examples, examples))
    assert [(c.weight, c.sharpness) for c in one if c] == [
        (c.weight, c.sharpness) for c in two if c
    ]


@pytest.mark.parametrize("counts", [(1, 1), (2, 3, 1), (5, 5, 5), (40, 2)])
def test_images_of_a_label_are_in_different_folds(counts: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    folds = _folds(labels)
    most = min(5, len(labels))
    assert set(folds.tolist()) == set(range(most))
    for label, count in enumerate(counts):
        _, sizes = np.unique(folds[labels == label], return_counts=True)
        assert sizes.max() <= -(-count // most)


def trial(gained: int, count: int) -> Trial:
    return Trial("a", 0, np.arange(count) < gained, -1.0)


@pytest.mark.parametrize(
    ("gained", "count", "methods", "is_above"),
    [
        (0, 100, 1, False),
        (1, 100, 1, False),
        (2, 2, 1, False),  # all examples, but too few
        (5, 5, 1, False),
        (6, 6, 1, True),
        (6, 100, 1, True),
        (6, 100, 3, False),  # one of three methods is easily better by chance
        (7, 100, 3, True),
    ],
)
def test_a_method_must_be_clearly_better(
    gained: int, count: int, methods: int, is_above: bool
) -> None:
    base = trial(0, count)
    assert trial(gained, count).is_above(base, methods) == is_above
    assert not base.is_above(trial(gained, count), methods)


@pytest.mark.parametrize("count", [6, 20])
def test_images_that_show_nothing_are_rarely_trusted(count: int) -> None:
    """The best of many settings is often better by chance on the images that chose it."""
    learned = 0
    for seed in range(40):
        rng = np.random.default_rng((seed, count))
        zero = Classifier(("a", "b"), unit(rng.normal(size=(2, DIM))), 20.0)
        examples = Examples(unit(rng.normal(size=(count, DIM))), np.arange(count) % 2)
        learned += learn(zero, examples, {"tip": tip_adapter}).classifier is not zero
    assert learned <= 1


def test_sixteen_images_of_each_label_improve_texts_that_are_partly_wrong() -> None:
    zero, examples = world(32, noise=0.3)
    shown = examples.only(np.arange(len(examples)) % 2 == 0)
    unseen = examples.only(np.arange(len(examples)) % 2 == 1)
    vectors = unit(zero.vectors + 0.3 * np.random.default_rng(1).normal(size=zero.vectors.shape))
    blurred = replace(zero, vectors=vectors)
    found = learn(blurred, shown, METHODS)
    assert found.chosen.method != ZERO_SHOT
    assert accuracy(found.classifier, unseen) > accuracy(blurred, unseen) + 0.05


def test_two_images_are_enough() -> None:
    zero, examples = world(1, noise=0.1)
    two = examples.only(examples.labels < 2)
    pair = replace(zero, labels=("a", "b"), vectors=zero.vectors[:2])
    assert learn(pair, two, METHODS).classifier is pair
