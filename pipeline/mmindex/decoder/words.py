"""The words of a decoder, and sequences of their numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from mmindex.core.errors import DataError, UsageError

PAD, START, ANSWER, END, UNKNOWN = range(5)
SPECIAL: Final = ("<pad>", "<start>", "<answer>", "<end>", "<unknown>")
MOST_WORDS: Final = 32
"""The maximum number of words in a prompt, and in an answer."""
_MOST_CHARACTERS: Final = 2_000  # of a prompt: far more than 32 words
_LONGEST_WORD: Final = 64
_EXAMPLE: Final = "for example: how many boats are there?"
_WORD: Final = re.compile(r"\w+(?:['-]\w+)*|,")


def split_words(text: str) -> list[str]:
    """Return the words and commas of a text in lower case."""
    return _WORD.findall(text.lower())


def join_words(words: Iterable[str]) -> str:
    """Join words with spaces; a comma follows its word directly."""
    return " ".join(words).replace(" ,", ",")


@dataclass(frozen=True, slots=False)
class Vocabulary:
    """The words that a decoder reads and writes.

    Attributes:
        words: the words in the order of their numbers, after the special ones.
    """

    words: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of different tokens."""
        return len(SPECIAL) + len(self.words)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, start=len(SPECIAL))}

    def encode(self, text: str) -> list[int]:
        """Return the numbers of the words of a text."""
        return [self._numbers.get(word, UNKNOWN) for word in split_words(text)]

    def prompt(self, text: str) -> list[int]:
        """Return the tokens of a prompt, from the start to where the answer begins.

        Raises:
            UsageError: the prompt has no words, no known words, or too many words.
        """
        words = self.encode(text[: _MOST_CHARACTERS + 1])
        if not words:
            raise UsageError("the question has no words", _EXAMPLE)
        if len(words) > MOST_WORDS or len(text) > _MOST_CHARACTERS:
            raise UsageError(
                f"the question has more than {MOST_WORDS} words", "ask a shorter question"
            )
        if not any(word != UNKNOWN for word in words):
            raise UsageError("the decoder knows none of the words in the question", _EXAMPLE)
        return [START, *words, ANSWER]

    def answer(self, text: str) -> list[int]:
        """Return the tokens of an answer with its end, cut after the maximum number of words."""
        return [*self.encode(text)[:MOST_WORDS], END]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens up to the end; special tokens have no text."""
        first = len(SPECIAL)
        stop = list(tokens).index(END) if END in tokens else len(tokens)
        return join_words(self.words[token - first] for token in tokens[:stop] if token >= first)


def learn_words(texts: Iterable[str]) -> Vocabulary:
    """Return all words of some texts, the most frequent first."""
    counts = Counter(word for text in texts for word in split_words(text))
    return Vocabulary(tuple(sorted(counts, key=lambda word: (-counts[word], word))))


def read_words(value: object) -> Vocabulary:
    """Check the words in a file.

    Raises:
        DataError: it is not a list of different words.
    """
    if not isinstance(value, list) or not all(
        isinstance(word, str) and len(word) <= _LONGEST_WORD and split_words(word) == [word]
        for word in value
    ):
        raise DataError("the vocabulary is not a list of words")
    if len(set(value)) != len(value):
        raise DataError("the vocabulary has a word twice")
    return Vocabulary(tuple(value))
