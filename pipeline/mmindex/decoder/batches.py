"""The input of a training step: several prompts with answers about each image, in one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmindex.decoder.questions import ask, describe
from mmindex.decoder.words import PAD, Vocabulary
from mmindex.scenes import Scene
from mmindex.scenes.scene import Lot

QUESTIONS_EACH: Final = 6
"""Questions about an image in a step, in addition to one description."""
_UNSEEN: Final = 0.08  # share of images that are hidden, so that the network also knows priors
# The tokens of an answer are few in comparison with a description.
_ANSWER_WEIGHT: Final = 3.0
NO_TARGET: Final = -100

Sequenced = tuple[list[int], list[int]]
"""The tokens of a prompt and of its answer."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences in rows, one row for each image.

    Attributes:
        tokens, positions, targets: int64 (b, n); the target is the next token of an answer.
        weights: float32 (b, n), of each target in the loss.
        mask: bool (b, 1, n, n), true if a token reads another: an earlier one of its sequence.
        unseen: bool (b,), images that are hidden.
    """

    tokens: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor
    mask: Tensor
    unseen: Tensor


def pack(rows: Sequence[Sequence[Sequenced]], unseen: NDArray[np.bool_]) -> Packed:
    """Put the sequences of each image after one another; the first of each is a description."""
    longest = max(sum(len(p) + len(a) - 1 for p, a in row) for row in rows)
    shape = (len(rows), longest)
    tokens, positions = np.full(shape, PAD, np.int64), np.zeros(shape, np.int64)
    targets, weights = np.full(shape, NO_TARGET, np.int64), np.zeros(shape, np.float32)
    owner = np.full(shape, -1, np.int64)
    for number, row in enumerate(rows):
        start = 0
        for place, (prompt, answer) in enumerate(row):
            whole = [*prompt, *answer]
            stop = start + len(whole) - 1
            tokens[number, start:stop] = whole[:-1]
            positions[number, start:stop] = range(len(whole) - 1)
            owner[number, start:stop] = place
            targets[number, stop - len(answer) : stop] = answer
            weights[number, stop - len(answer) : stop] = _ANSWER_WEIGHT if place else 1.0
            start = stop
    same = owner[:, :, None] == owner[:, None, :]
    mask = same & np.tri(longest, dtype=np.bool_)
    return Packed(
        torch.from_numpy(tokens),
        torch.from_numpy(positions),
        torch.from_numpy(targets),
        torch.from_numpy(weights),
        torch.from_numpy(mask)[:, None],
        torch.from_numpy(unseen),
    )


def batch_of(scenes: Sequence[Scene], vocabulary: Vocabulary, seed: int, step: int) -> Packed:
    """Return the input of one step; it depends only on the arguments."""
    rng = np.random.default_rng((seed, step))
    rows = []
    for scene in scenes:
        lot = Lot(seed, step, scene.seed, scene.number, "questions")
        asked = [describe(scene, lot), *(ask(scene, lot) for _ in range(QUESTIONS_EACH))]
        rows.append([(vocabulary.prompt(a.prompt), vocabulary.answer(a.answer)) for a in asked])
    return pack(rows, rng.random(len(rows)) < _UNSEEN)
