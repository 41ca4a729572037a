"""Generate answers, greedily or with a beam, and rank given answers by likelihood."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from mmindex.decoder.batches import NO_TARGET, pack
from mmindex.decoder.model import DecoderModel
from mmindex.decoder.network import DecoderNetwork
from mmindex.decoder.words import ANSWER, END, MOST_WORDS, PAD, START, UNKNOWN

_NGRAM: Final = 3  # words that are never repeated in the same order
_AT_ONCE: Final = 256  # texts in a batch
_BANNED: Final = (PAD, START, ANSWER, UNKNOWN)


@dataclass(frozen=True, slots=True)
class Generated:
    """A generated text.

    Attributes:
        text: the words.
        score: mean natural logarithm of the probability of a word, at most 0.
    """

    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Search:
    """How texts are searched.

    Attributes:
        beams: the number of candidates; 1 is greedy.
        most_words: the maximum length of a text, at most 32.
        blind: hide the images from the network.
    """

    beams: int = 1
    most_words: int = MOST_WORDS
    blind: bool = False


GREEDY: Final = Search()


def generate(
    model: DecoderModel,
    maps: Sequence[Tensor],
    prompts: Sequence[str],
    search: Search = GREEDY,
    rows: Sequence[int] | None = None,
) -> list[Generated]:
    """Return one text for each prompt.

    No sequence of three words occurs twice in a text.

    Args:
        maps: feature maps, float (b, places, channels) each.
        prompts: questions or instructions.
        rows: the row of ``maps`` for each prompt; None: prompt *i* is about row *i*.

    Raises:
        UsageError: a prompt has no words, or too many.
    """
    starts = [model.vocabulary.prompt(prompt) for prompt in prompts]
    # Prompts of equal length share a batch.
    order = sorted(range(len(starts)), key=lambda place: len(starts[place]))
    found: list[Generated | None] = [None] * len(starts)
    for _, group in itertools.groupby(order, key=lambda place: len(starts[place])):
        places = list(group)
        for first in range(0, len(places), _AT_ONCE):
            part = places[first : first + _AT_ONCE]
            images = torch.tensor(part if rows is None else [rows[place] for place in part])
            chosen = [one[images] for one in maps]
            texts = _searched(
                model, chosen, torch.tensor([starts[place] for place in part]), search
            )
            for place, text in zip(part, texts, strict=True):
                found[place] = text
    return [one for one in found if one is not None]


@torch.inference_mode()
def _searched(
    model: DecoderModel, maps: list[Tensor], start: Tensor, search: Search
) -> list[Generated]:
    """Return one text for each image; ``start`` is int64 (b, n)."""
    images, beams, network = len(start), search.beams, model.network
    unseen = torch.ones(images, dtype=torch.bool) if search.blind else None
    memory = [one.repeat_interleave(beams, dim=0) for one in network.memory(maps, unseen)]
    tokens = start.repeat_interleave(beams, dim=0)
    # All beams of an image are equal at first: only one of them may continue.
    totals = torch.full((images, beams), float("-inf"))
    totals[:, 0] = 0.0
    past: list[Tensor] | None = None
    for written in range(search.most_words + 1):
        ended = (tokens[:, -1] == END) | (tokens[:, -1] == PAD)
        if bool(ended.all()):
            break
        step, past = _next_scores(network, tokens, memory, past)
        step[:, _BANNED] = float("-inf")
        _ban_repeats(step, tokens, start.shape[1])
        if written == 0:
            step[:, END] = float("-inf")
        if written == search.most_words:
            step[:, :END] = step[:, END + 1 :] = float("-inf")
        step[ended] = float("-inf")
        step[ended, PAD] = 0.0
        totals, source, word = _best(totals, step.view(images, beams, -1))
        tokens = torch.cat([tokens[source], word[:, None]], dim=1)
        past = [one[:, source] for one in past]
    return _chosen(model, tokens[:, start.shape[1] :].view(images, beams, -1), totals)


def _next_scores(
    network: DecoderNetwork, tokens: Tensor, memory: list[Tensor], past: list[Tensor] | None
) -> tuple[Tensor, list[Tensor]]:
    """Return log-probabilities of the next word, float32 (b, words), and the new past."""
    count = tokens.shape[1]
    new = torch.arange(count) if past is None else torch.tensor([count - 1])
    mask = torch.ones(count, count, dtype=torch.bool).tril() if past is None else None
    states, past = network(tokens[:, new], new.expand(len(tokens), -1), mask, memory, past)
    return network.scores(states[:, -1]).log_softmax(dim=-1), past


def _ban_repeats(step: Tensor, tokens: Tensor, start: int) -> None:
    """Exclude words that would repeat three words in the same order, or the last word."""
    step.scatter_(1, tokens[:, -1:], float("-inf"))
    for row, line in enumerate(tokens[:, start:].tolist()):
        tail = line[1 - _NGRAM :]
        for place in range(len(line) - _NGRAM + 1):
            if line[place : place + _NGRAM - 1] == tail:
                step[row, line[place + _NGRAM - 1]] = float("-inf")


def _best(totals: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the new totals (images, beams), and for each beam its source row and its word."""
    images, beams, words = step.shape
    sums = (totals[:, :, None] + step).flatten(1)
    totals, chosen = sums.topk(beams, dim=1)
    rows = torch.arange(images)[:, None] * beams + chosen // words
    return totals, rows.flatten(), (chosen % words).flatten()


def _chosen(model: DecoderModel, tokens: Tensor, totals: Tensor) -> list[Generated]:
    """Choose the best beam of each image by the mean over its words."""
    lengths = (tokens != PAD).sum(dim=-1).clamp(min=1)
    means = totals / lengths
    best = means.argmax(dim=1)
    return [
        Generated(model.vocabulary.decode(beams[place].tolist()), float(mean[place]))
        for beams, mean, place in zip(tokens, means, best.tolist(), strict=True)
    ]


@torch.inference_mode()
def likelihoods(
    model: DecoderModel, maps: Sequence[Tensor], prompt: str, answers: Sequence[str]
) -> Tensor:
    """Return the mean log-probability of the words of each answer: float32 (b, answers).

    Raises:
        UsageError: the prompt has no words, or too many.
    """
    start = model.vocabulary.prompt(prompt)
    memory = model.network.memory(list(maps))
    columns = []
    for answer in answers:
        row = [(start, model.vocabulary.answer(answer))]
        packed = pack([row], torch.zeros(1, dtype=torch.bool).numpy())
        count = len(maps[0])
        states, _ = model.network(
            packed.tokens.expand(count, -1),
            packed.positions.expand(count, -1),
            packed.mask,
            memory,
        )
        targets = packed.targets[0]
        known = targets != NO_TARGET
        scores = model.network.scores(states[:, known]).log_softmax(dim=-1)
        columns.append(scores.gather(2, targets[known].expand(count, -1)[..., None]).mean((1, 2)))
    return torch.stack(columns, dim=1)
