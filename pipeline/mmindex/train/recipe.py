"""From a user's request to a training run: open the sources, make the model, train."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mmindex.core.errors import UsageError, os_errors
from mmindex.models.files import locate
from mmindex.models.resolve import NO_WEIGHTS, ModelRequest
from mmindex.sources.spec import SourceOptions
from mmindex.store.layout import Layout
from mmindex.train.corpus import LIMITS, captioned_items, split_off, without
from mmindex.train.folder import TrainableModel, learn_vocabulary, load_trainable, whole_config
from mmindex.train.settings import CaptionedImage, TrainSettings
from mmindex.train.train import TrainOutput, TrainReport, train

HELD_OUT: Final = 1_000
_VOCABULARY_SAMPLE: Final = 20_000  # images whose captions determine the byte pairs


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training run as requested.

    Attributes:
        sources: source specs to train on.
        validation: source specs to measure recall on; none: a part of ``sources`` is held out,
            1,000 images or a tenth, whichever is less.
        model: the model to start from; without weights it is trained from scratch.
        vocabulary: number of byte-pair merges to learn from the captions; 0 keeps the model's own.
    """

    sources: Sequence[str]
    validation: Sequence[str]
    model: ModelRequest
    vocabulary: int
    settings: TrainSettings
    output: TrainOutput


def run_recipe(recipe: Recipe) -> TrainReport:
    """Open everything and train.

    Raises:
        UsageError: a spec is malformed, or a vocabulary is to be learned for trained weights.
        MmindexError: see :func:`mmindex.train.train.train` and what opens sources and models.
    """
    if not recipe.sources:
        raise UsageError(
            "nothing to train on", "set `source`, for example scenes:100000@4294967296"
        )
    if recipe.vocabulary and recipe.model.pretrained != NO_WEIGHTS:
        raise UsageError(
            "a vocabulary can be learned only with untrained weights", "add `pretrained=none`"
        )
    items = _open(recipe, recipe.sources)
    if recipe.validation:
        held_out = _open(recipe, recipe.validation)
        items = without(items, held_out)
    else:
        items, held_out = split_off(items, min(HELD_OUT, max(1, len(items) // 10)))
    return train(_model(recipe, items), items, held_out, recipe.settings, recipe.output)


def _open(recipe: Recipe, specs: Sequence[str]) -> Sequence[CaptionedImage]:
    options = SourceOptions(layout=Layout(recipe.output.work), max_bytes=LIMITS.max_bytes)
    opened = [captioned_items(text, options) for text in specs]
    if len(opened) == 1:
        return opened[0]
    return list(itertools.chain.from_iterable(opened))


def _model(recipe: Recipe, items: Sequence[CaptionedImage]) -> TrainableModel:
    if not recipe.vocabulary:
        return load_trainable(recipe.model, recipe.settings.seed)
    folder = recipe.output.work / "start"
    with os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    config = whole_config(locate(recipe.model))
    request = learn_vocabulary(config, _sample(items), recipe.vocabulary, folder)
    return load_trainable(request, recipe.settings.seed)


def _sample(items: Sequence[CaptionedImage]) -> Iterator[str]:
    """Yield captions of images spread evenly over the corpus."""
    stride = max(1, len(items) // _VOCABULARY_SAMPLE)
    for index in range(0, len(items), stride):
        yield from items[index].captions
