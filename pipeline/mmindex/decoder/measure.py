"""Ask questions about scenes and compare the answers with the ground truth."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from mmindex.decoder.generate import Search, generate
from mmindex.decoder.model import DecoderModel
from mmindex.decoder.questions import QUESTIONS, TASKS, Asked
from mmindex.scenes import Scene
from mmindex.scenes.scene import Lot

HELD_OUT: Final = "task, new wording"


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with the answers of the decoder and of the baselines.

    Attributes:
        asked: the question and its correct answer.
        told: the answer of the decoder.
        blind: its answer without the image.
    """

    asked: Asked
    told: str
    blind: str


def questions_about(scene: Scene) -> Iterator[Asked]:
    """Yield one question of each type, and each task in a wording that is not trained."""
    lot = Lot("measure", scene.seed, scene.number)
    for maker in QUESTIONS.values():
        asked = maker(scene, lot)
        if asked is not None:
            yield asked
    for wordings, new, answer in TASKS:
        yield Asked("task", lot.one_of(wordings), answer(scene))
        yield Asked(HELD_OUT, new, answer(scene))


def answered(
    model: DecoderModel, scenes: Sequence[Scene], maps: Sequence[Tensor], *, blind: bool
) -> list[str]:
    """Return the answers to all questions about the scenes, in order."""
    asked = [
        (row, one.prompt) for row, scene in enumerate(scenes) for one in questions_about(scene)
    ]
    # Without the image, equal questions have equal answers.
    distinct = list({prompt: (0, prompt) for _, prompt in asked}.values()) if blind else asked
    rows, prompts = [row for row, _ in distinct], [prompt for _, prompt in distinct]
    found = generate(model, maps, prompts, Search(most_words=24, blind=blind), rows)
    texts = dict(zip(distinct, (one.text for one in found), strict=True))
    return [texts[(0, prompt) if blind else (row, prompt)] for row, prompt in asked]


def answer_accuracy(
    model: DecoderModel, scenes: Sequence[Scene], maps: Sequence[Tensor]
) -> dict[str, float]:
    """Return the share of correct answers by type of question."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    asked = [one for scene in scenes for one in questions_about(scene)]
    for one, told in zip(asked, answered(model, scenes, maps, blind=False), strict=True):
        total[one.type] += 1
        right[one.type] += told == one.answer
    return {name: right[name] / total[name] for name in total}


def majority(asked: Sequence[Asked]) -> dict[str, str]:
    """Return the most frequent answer of each type of question."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in asked:
        counts[one.type][one.answer] += 1
    return {name: max(sorted(found), key=found.__getitem__) for name, found in counts.items()}
