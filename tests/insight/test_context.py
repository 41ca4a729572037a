"""Learned contexts: prompts whose words are free vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmindex.insight import context
from mmindex.insight.classify import Classifier
from mmindex.insight.context import ContextLearner, context_learner
from mmindex.insight.few_shot import Examples
from mmindex.insight.labels import Label, label_vectors
from mmindex.models.devices import place
from mmindex.models.openclip import OpenClipEncoder, load_encoder
from mmindex.models.resolve import resolve_model
from support.models import TinyModel

LABELS = (Label("dog", ("dog", "red dog")), Label("cat", ("cat",)), Label("狗", ("blue",)))
TEMPLATES = ("{}", "the dog on the {}.", "a {}")


def opened(name: str) -> OpenClipEncoder:
    encoder = load_encoder(resolve_model(name, None), place("cpu"))
    assert isinstance(encoder, OpenClipEncoder)
    return encoder


@pytest.fixture(scope="module", params=["tiny", "photos"])
def encoder(request: pytest.FixtureRequest, tiny_model: TinyModel) -> OpenClipEncoder:
    return opened(tiny_model.name if request.param == "tiny" else "photos")


def learner_of(encoder: OpenClipEncoder) -> ContextLearner:
    found = context_learner(encoder, LABELS, TEMPLATES)
    assert found is not None
    return found


def zero_of(encoder: OpenClipEncoder) -> Classifier:
    vectors = label_vectors(LABELS, TEMPLATES[1:2], encoder.encode_texts)
    return Classifier(tuple(label.name for label in LABELS), vectors, 20.0)


def test_a_context_that_is_not_trained_changes_nothing(
    encoder: OpenClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts with learned words go through the same network as other texts."""
    monkeypatch.setattr(context, "_LEARNING_RATE", 0.0)
    zero = zero_of(encoder)
    examples = Examples(zero.vectors, np.arange(3))
    for one in learner_of(encoder)(zero, examples):
        assert one.vectors == pytest.approx(zero.vectors, abs=2e-6)


def test_training_raises_the_probability_of_the_examples(encoder: OpenClipEncoder) -> None:
    zero = zero_of(encoder)
    examples = Examples(np.roll(zero.vectors, 1, axis=0), np.arange(3))

    def loss(one: Classifier) -> float:
        logits = torch.from_numpy(one.logits(examples.images))
        return float(torch.nn.functional.cross_entropy(logits, torch.arange(3)))

    losses = [loss(one) for one in learner_of(encoder)(zero, examples)]
    assert losses[-1] < losses[0] < loss(zero)


def test_the_model_is_unchanged_afterwards(encoder: OpenClipEncoder) -> None:
    before = encoder.encode_texts(["the dog on the cat."])
    zero = zero_of(encoder)
    learning = learner_of(encoder)(zero, Examples(zero.vectors, np.arange(3)))
    next(learning)
    learning.close()
    assert np.array_equal(encoder.encode_texts(["the dog on the cat."]), before)
    assert not any(one._forward_hooks for one in encoder.model.modules())


def test_templates_without_words_in_front_have_no_context(encoder: OpenClipEncoder) -> None:
    assert context_learner(encoder, LABELS, ("{}", "{} on the dog")) is None


def test_labels_longer_than_the_models_context_are_cut(tiny_model: TinyModel) -> None:
    encoder = opened(tiny_model.name)
    long = (Label("a", ("dog " * 100,)), Label("b", ("cat",)))
    assert context_learner(encoder, long, TEMPLATES) is not None
