"""Metrics of descriptions and answers.

Texts are compared word by word, in lower case and without punctuation.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from mmindex.core.errors import DataError, MissingPackageError

_WORD: Final = re.compile(r"[一-鿿]|[^\W一-鿿]+(?:['-]\w+)*")
_ORDER: Final = 4
_SIGMA: Final = 6.0  # of the penalty for another length, in words
_BETA: Final = 1.2  # weight of recall in ROUGE-L
Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """The metrics of descriptions with several references each.

    Attributes:
        bleu: BLEU-1 to BLEU-4 (Papineni et al. 2002), 0 to 1.
        cider: CIDEr-D (Vedantam et al. 2015), 0 to 10; depends on the number of images.
        rouge: ROUGE-L (Lin 2004), 0 to 1.
        repeated: share of descriptions in which a word pair occurs twice.
    """

    bleu: tuple[float, float, float, float]
    cider: float
    rouge: float
    repeated: float


def words_of(text: str) -> Words:
    """Return the words of a text; a Chinese character is a word."""
    return tuple(_WORD.findall(text.lower()))


def score_captions(texts: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Compare a text for each image with its references.

    Raises:
        DataError: there are no images, or an image has no reference.
        MissingPackageError: sacrebleu is not installed.
    """
    if not texts or not all(references):
        raise DataError("metrics need at least one image, and a reference for each image")
    said = [words_of(text) for text in texts]
    known = [[words_of(one) for one in some] for some in references]
    return CaptionScores(
        bleu=bleu(said, known),
        cider=cider_d(said, known),
        rouge=sum(map(rouge_l, said, known)) / len(said),
        repeated=sum(len(set(pairwise(w))) < len(w) - 1 for w in said) / len(said),
    )


def bleu(
    texts: Sequence[Words], references: Sequence[Sequence[Words]]
) -> tuple[float, float, float, float]:
    """Return BLEU-1 to BLEU-4 of a corpus.

    Raises:
        MissingPackageError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise MissingPackageError(
            "BLEU needs sacrebleu", "pip install 'mmindex[metrics]'"
        ) from error
    most = max(len(some) for some in references)
    # Each list holds one reference of every image; an image with fewer repeats its last one.
    columns = [
        [" ".join(some[min(place, len(some) - 1)]) for some in references] for place in range(most)
    ]
    said = [" ".join(words) for words in texts]
    one, two, three, four = (
        BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
        .corpus_score(said, columns)
        .score
        / 100
        for order in range(1, _ORDER + 1)
    )
    return one, two, three, four


def cider_d(texts: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Return CIDEr-D, with document frequencies from the references themselves."""
    seen: Counter[Words] = Counter()
    for some in references:
        seen.update({gram for words in some for gram in _grams(words)})
    most = math.log(len(references))

    def vectors(words: Words) -> list[dict[Words, float]]:
        parts: list[dict[Words, float]] = [{} for _ in range(_ORDER)]
        for gram, count in _grams(words).items():
            parts[len(gram) - 1][gram] = count * (most - math.log(max(1, seen[gram])))
        return parts

    total = 0.0
    for words, some in zip(texts, references, strict=True):
        own = vectors(words)
        alike = [_similarity(own, vectors(one), len(words) - len(one)) for one in some]
        total += 10 * sum(alike) / len(alike)
    return total / len(texts)


def _grams(words: Words) -> Counter[Words]:
    return Counter(
        words[start : start + order]
        for order in range(1, _ORDER + 1)
        for start in range(len(words) - order + 1)
    )


def _similarity(
    one: Sequence[Mapping[Words, float]], other: Sequence[Mapping[Words, float]], longer: int
) -> float:
    """Return the mean over the orders of the clipped cosine similarity."""
    total = 0.0
    for mine, theirs in zip(one, other, strict=True):
        shared = sum(min(mine.get(gram, 0.0), value) * value for gram, value in theirs.items())
        lengths = _length(mine) * _length(theirs)
        total += shared / lengths if lengths else shared
    return total / len(one) * math.exp(-(longer**2) / (2 * _SIGMA**2))


def _length(vector: Mapping[Words, float]) -> float:
    return math.sqrt(sum(value * value for value in vector.values()))


def rouge_l(words: Words, references: Sequence[Words]) -> float:
    """Return ROUGE-L of one text: the best precision and the best recall of its references."""
    common = [(_common(words, one), len(one)) for one in references]
    precision = max(count / max(1, len(words)) for count, _ in common)
    recall = max(count / max(1, length) for count, length in common)
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common(one: Words, other: Words) -> int:
    """Return the length of the longest common subsequence."""
    before = [0] * (len(other) + 1)
    for word in one:
        now = [0]
        for place, theirs in enumerate(other):
            now.append(before[place] + 1 if word == theirs else max(before[place + 1], now[-1]))
        before = now
    return before[-1]


_NUMBERS: Final = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES: Final = ("a", "an", "the")
_ENOUGH: Final = 3  # people who gave an answer that counts in full


def plain_answer(text: str) -> str:
    """Return an answer in the form in which VQA answers are compared.

    It has lower case, digits for numbers, and no articles, apostrophes or punctuation.
    """
    bare = re.sub(r"(?<=\d),(?=\d)|(?<!\d)\.|\.(?!\d)|['’]", "", text.lower())
    words = re.sub(r"[^\w\s.:$%&]", " ", bare).split()
    return " ".join(_NUMBERS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """Return the accuracy of an answer as in VQA v2 (Goyal et al. 2017), 0 to 1.

    It is the mean of min(matches / 3, 1) over the answers of all people but one.

    Raises:
        DataError: there are no answers of people.
    """
    if not people:
        raise DataError("VQA accuracy needs the answers of people")
    own = plain_answer(answer)
    right = [plain_answer(one) == own for one in people]
    if len(right) == 1:
        return float(right[0])
    shares = [min((sum(right) - one) / _ENOUGH, 1.0) for one in right]
    return sum(shares) / len(shares)
