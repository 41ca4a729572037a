"""BERT's uncased tokenizer: text to word pieces, without an additional package.

The rules are those of the reference (J. Devlin et al., BERT, NAACL 2019; ``tokenization.py`` of
google-research/bert, in the form of the Rust package ``tokenizers``): remove control
characters, separate Chinese characters, remove accents, convert to lower case, split at white space
and punctuation, then repeatedly take the longest piece in the vocabulary.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError
from mmindex.models.vocabulary import WordCache, read_lines

PAD: Final = "[PAD]"
_UNKNOWN: Final = "[UNK]"
_START: Final = "[CLS]"
_END: Final = "[SEP]"
# A longer word is unknown as a whole, as in the reference, because trying every length of a very
# long word takes quadratic time.
_LONGEST_WORD: Final = 100
# Control, format, private and surrogate characters; unassigned characters are kept.
_DROPPED: Final = frozenset({"Cc", "Cf", "Co", "Cs"})
# The blocks that count as Chinese in the reference.
_CHINESE: Final = re.compile(
    "([\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f"
    "\U0002b740-\U0002b81f\U0002b920-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f])"
)


@dataclass(slots=True)
class WordPiece:
    """A tokenizer with its vocabulary.

    Attributes:
        vocabulary: the number of each piece; pieces inside a word begin with ``##``.
        context_length: the largest number of tokens of a text, including its two markers.
    """

    vocabulary: dict[str, int]
    context_length: int
    _known: WordCache = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._known = WordCache(self._cut)

    def __call__(
        self, texts: Sequence[str], context_length: int | None = None
    ) -> NDArray[np.int64]:
        """Return the tokens of b texts: int64 (b, longest of them), padded at the end."""
        rows = [self.encode(text, context_length) for text in texts]
        longest = max(map(len, rows), default=0)
        tokens = np.full((len(rows), longest), self.vocabulary[PAD], dtype=np.int64)
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = row
        return tokens

    def encode(self, text: str, context_length: int | None = None) -> list[int]:
        """Return the tokens of one text with its markers, truncated to the context length."""
        room = (context_length or self.context_length) - 2
        tokens: list[int] = []
        for word in split_words(text):
            tokens += self._known[word]
            if len(tokens) >= room:
                break
        return [self.vocabulary[_START], *tokens[:room], self.vocabulary[_END]]

    def _cut(self, word: str) -> tuple[int, ...]:
        unknown = (self.vocabulary[_UNKNOWN],)
        if len(word) > _LONGEST_WORD:
            return unknown
        pieces: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for stop in range(len(word), start, -1):
                piece = self.vocabulary.get(prefix + word[start:stop])
                if piece is not None:
                    break
            else:
                return unknown
            pieces.append(piece)
            start = stop
        return tuple(pieces)


def read_vocabulary(path: Path) -> dict[str, int]:
    """Read a vocabulary (gzip), one piece per line; the number of a piece is its line, from 0.

    Raises:
        DataError: it is not text, or a marker is missing.
        MmindexError: it cannot be read.
    """
    vocabulary = {piece: number for number, piece in enumerate(read_lines(path)) if piece}
    missing = [mark for mark in (PAD, _UNKNOWN, _START, _END) if mark not in vocabulary]
    if missing:
        raise DataError(f"{path}: not a word-piece vocabulary: {missing[0]} is missing")
    return vocabulary


def split_words(text: str) -> list[str]:
    """Split text into lower-case words and punctuation marks, without accents."""
    if not text.isascii():
        text = _CHINESE.sub(r" \1 ", "".join(map(_cleaned, text)))
        text = "".join(
            letter for letter in unicodedata.normalize("NFD", text) if not _is_accent(letter)
        )
        # Letter by letter, as in the reference: str.lower() converts a final sigma differently.
        text = "".join(letter.lower() for letter in text)
    else:
        text = "".join(map(_cleaned, text)).lower()
    return "".join(f" {letter} " if _is_mark(letter) else letter for letter in text).split()


def _cleaned(letter: str) -> str:
    if letter in "\t\n\r":
        return " "
    if letter == "\ufffd" or unicodedata.category(letter) in _DROPPED:
        return ""
    return " " if letter.isspace() else letter


def _is_accent(letter: str) -> bool:
    return unicodedata.category(letter) == "Mn"


def _is_mark(letter: str) -> bool:
    # ASCII symbols such as $ and + count as punctuation; other symbols do not.
    if letter.isascii():
        return letter.isprintable() and not letter.isalnum() and letter != " "
    return unicodedata.category(letter)[0] == "P"
