"""Files of questions and answers in the format of VQA v2, and the accuracy of VQA v2.

The format and the accuracy are those of Y. Goyal et al., Making the V in VQA Matter, CVPR 2017
(https://visualqa.org): ten people answer each question, and the accuracy of an answer depends on
how many of them gave it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from mmindex.core.errors import DataError
from mmindex.sources.annotations import decode_json, read_bytes

_ENOUGH: Final = 3  # people that give the same answer: the accuracy is 1
_NUMBERS: Final = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_ARTICLES: Final = frozenset({"a", "an", "the"})
_PUNCTUATION: Final = ';/[]"{}()=+\\_-><@`,?!'
_THOUSANDS: Final = re.compile(r"\d,\d")
_FULL_STOP: Final = re.compile(r"\.(?!\d)")
_CONTRACTIONS: Final = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't "
    "mightn't've might've mustn't must've needn't not've o'clock oughtn't shan't she'd've "
    "should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've "
    "someone'll someone's something'd something'd've something'll that's there'd there'd've "
    "there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't "
    "what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's "
    "who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've "
    "you'd you'd've you'll you're you've"
)


def _without_an_apostrophe(word: str) -> Iterable[str]:
    yield word.replace("'", "")
    places = [place for place, letter in enumerate(word) if letter == "'"]
    yield from (word[:place] + word[place + 1 :] for place in places)


_SPELLINGS: Final = {
    wrong: right for right in _CONTRACTIONS.split() for wrong in _without_an_apostrophe(right)
}


class Question(msgspec.Struct, frozen=True):
    """A question about an image."""

    question_id: int | str
    image_id: int | str
    question: str


class _Answer(msgspec.Struct, frozen=True):
    answer: str


class Annotation(msgspec.Struct, frozen=True):
    """The answers that people gave to a question."""

    question_id: int | str
    answers: list[_Answer]
    question_type: str = "all"
    answer_type: str = "all"

    @property
    def given(self) -> list[str]:
        """The answers, normalised."""
        return [normalised(one.answer) for one in self.answers]


class _Questions(msgspec.Struct):
    questions: list[Question]


class _Annotations(msgspec.Struct):
    annotations: list[Annotation]


def read_questions(path: Path) -> list[Question]:
    """Read a file of questions, such as ``v2_OpenEnded_mscoco_val2014_questions.json``.

    Raises:
        DataError: it is damaged, has no questions, or contains one twice.
        MmindexError: it cannot be read.
    """
    found, _ = decode_json(read_bytes(path), _Questions, str(path))
    if not found.questions:
        raise DataError(f"{path}: no questions", "add questions to the list `questions`")
    _require_different(path, found.questions)
    return found.questions


def read_annotations(path: Path) -> dict[str, Annotation]:
    """Read a file of answers, such as ``v2_mscoco_val2014_annotations.json``, by question id.

    Raises:
        DataError: it is damaged, or a question occurs twice or has no answers.
        MmindexError: it cannot be read.
    """
    found, _ = decode_json(read_bytes(path), _Annotations, str(path))
    _require_different(path, found.annotations)
    for one in found.annotations:
        if not one.answers:
            raise DataError(
                f"{path}: the question {one.question_id!r:.80} has no answers",
                "add at least one answer, or remove the question",
            )
    return {str(one.question_id): one for one in found.annotations}


def _require_different(path: Path, found: Sequence[Question] | Sequence[Annotation]) -> None:
    counts = Counter(str(one.question_id) for one in found)
    name, count = max(counts.items(), key=lambda pair: pair[1], default=("", 0))
    if count > 1:
        raise DataError(
            f"{path}: the question {name!r:.80} occurs {count:,} times",
            "use each `question_id` once",
        )


def normalised(answer: str) -> str:
    """Return an answer in the form in which VQA v2 compares answers.

    It is in lower case, without articles and most punctuation. Numbers from zero to ten are digits,
    and missing apostrophes are added.
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    joined = _THOUSANDS.search(text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if joined or beside_space else " ")
    words = (_NUMBERS.get(word, word) for word in _FULL_STOP.sub("", cleaned).lower().split())
    return " ".join(_SPELLINGS.get(word, word) for word in words if word not in _ARTICLES)


def accuracy(answer: str, given: Sequence[str]) -> float:
    """Return the accuracy of an answer, from 0 to 1.

    It is the mean of ``min(n / 3, 1)`` over all sets of answers that leave out one person, where
    *n* people in the set gave this answer. With fewer than four people, no answer could reach 1, so
    an answer is right if at least one person gave it.

    Args:
        answer, given: normalised answers.
    """
    same = given.count(answer)
    if len(given) <= _ENOUGH:
        return float(same > 0)
    with_one_less = same * min((same - 1) / _ENOUGH, 1.0)
    with_all = (len(given) - same) * min(same / _ENOUGH, 1.0)
    return (with_one_less + with_all) / len(given)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Mean accuracies over some questions.

    Attributes:
        asked: the number of questions.
        decoder: the accuracy of the answers.
        majority: the accuracy of the most frequent answer to each type of question.
        blind: the accuracy of the answers that the decoder gives without the image.
    """

    asked: int
    decoder: float
    majority: float
    blind: float


@dataclass(frozen=True, slots=True)
class VqaReport:
    """The accuracy of answers.

    Attributes:
        overall: the accuracy for all questions with an answer and an annotation.
        by_question, by_answer: the accuracy for each type of question, and of answer.
        left_out: the number of questions without an answer or an annotation.
    """

    overall: Accuracy
    by_question: Mapping[str, Accuracy]
    by_answer: Mapping[str, Accuracy]
    left_out: int


def compare(
    answers: Mapping[str, str],
    blind: Mapping[str, str],
    known: Mapping[str, Annotation],
    asked: int,
) -> VqaReport:
    """Compare answers with those of people.

    Args:
        answers, blind: answers with and without the image, by question id.
        known: the answers of people, by question id.
        asked: the number of questions.

    Raises:
        DataError: no question has an answer and an annotation.
    """
    names = require_known(answers, known)
    often = _majority([known[name] for name in names])
    rows: list[tuple[float, float, float]] = []
    for name in names:
        given = known[name].given
        guesses = (answers[name], often[known[name].question_type], blind[name])
        own, majority, guess = (accuracy(normalised(one), given) for one in guesses)
        rows.append((own, majority, guess))

    def grouped(types: Iterable[str]) -> dict[str, Accuracy]:
        groups: defaultdict[str, list[tuple[float, float, float]]] = defaultdict(list)
        for kind, row in zip(types, rows, strict=True):
            groups[kind].append(row)
        return {kind: _mean(groups[kind]) for kind in sorted(groups)}

    return VqaReport(
        overall=_mean(rows),
        by_question=grouped(known[name].question_type for name in names),
        by_answer=grouped(known[name].answer_type for name in names),
        left_out=asked - len(names),
    )


def require_known(names: Iterable[str], known: Mapping[str, Annotation]) -> list[str]:
    """Return the ids of questions that people have answered.

    Raises:
        DataError: there is none.
    """
    found = [name for name in names if name in known]
    if not found:
        raise DataError(
            "no question has an answer and an annotation",
            "use `questions` and `annotations` with the same question ids",
        )
    return found


def _majority(known: Sequence[Annotation]) -> dict[str, str]:
    """Return the most frequent answer to each type of question."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in known:
        counts[one.question_type].update(one.given)
    return {kind: max(sorted(found), key=found.__getitem__) for kind, found in counts.items()}


def _mean(rows: Sequence[tuple[float, float, float]]) -> Accuracy:
    own, majority, blind = (sum(column) / len(rows) for column in zip(*rows, strict=True))
    return Accuracy(len(rows), own, majority, blind)
