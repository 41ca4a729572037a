"""CLIP's tokenizer: byte-pair encoding of cleaned lower-case text.

It returns the same tokens as open_clip's ``SimpleTokenizer`` with default options, but does not
import torch. The method is byte-pair encoding (R. Sennrich et al., Neural Machine Translation of
Rare Words with Subword Units, ACL 2016), applied to bytes instead of letters (A. Radford et al.,
Language Models are Unsupervised Multitask Learners, 2019).
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import ftfy
import numpy as np
import regex
from numpy.typing import NDArray

from mmindex.models.vocabulary import WordCache, read_lines

_MARKS: Final = ("<start_of_text>", "<end_of_text>")
_WORD_END: Final = "</w>"
# CLIP's file contains more merges than 49,408 tokens need; the others are not used.
_TOKENS: Final = 49_408
# Bytes that are printable characters in Latin-1 are represented by these characters, and all others
# by the characters from U+0100.
_SHOWN: Final = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_HIDDEN: Final = {
    byte: 0x100 + number for number, byte in enumerate(sorted({*range(256)} - {*_SHOWN}))
}
_BYTES: Final = [chr(letter) for letter in (*_SHOWN, *_HIDDEN.values())]
_WORDS: Final = regex.compile(
    rf"{'|'.join(_MARKS)}|'(?:s|t|re|ve|m|ll|d)|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",
    regex.IGNORECASE,
)
# The rank of a pair that is not merged.
_NEVER: Final = 1 << 62


@dataclass(slots=True)
class BytePairs:
    """A tokenizer with its merges.

    Attributes:
        numbers: the number of each piece; the last piece of a word ends with ``</w>``.
        ranks: the order in which pairs of pieces are merged.
    """

    numbers: dict[str, int]
    ranks: dict[tuple[str, ...], int]
    _known: WordCache = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._known = WordCache(self._cut)

    def __call__(self, texts: Sequence[str], context_length: int) -> NDArray[np.int64]:
        """Return the tokens of b texts, truncated: int64 (b, context_length), padded with 0."""
        tokens = np.zeros((len(texts), context_length), dtype=np.int64)
        for row, text in zip(tokens, texts, strict=True):
            found = self.encode(text, context_length)
            row[: len(found)] = found
        return tokens

    def encode(self, text: str, context_length: int) -> list[int]:
        """Return the tokens of a text with start and end marks, truncated to the context length."""
        start, end = (self.numbers[mark] for mark in _MARKS)
        tokens = [start]
        for word in _WORDS.findall(_cleaned(text)):
            tokens += self._known[word]
            if len(tokens) >= context_length:
                break
        return [*tokens[: context_length - 1], end]

    def _cut(self, word: str) -> tuple[int, ...]:
        if word in _MARKS:
            return (self.numbers[word],)
        letters = word.encode("utf-8").decode("latin-1").translate(_HIDDEN)
        pieces = [*letters[:-1], letters[-1] + _WORD_END]
        while len(pieces) > 1:
            ranks = [self.ranks.get(pair, _NEVER) for pair in pairwise(pieces)]
            best = min(ranks)
            if best == _NEVER:
                break
            pieces = _merged(pieces, ranks, best)
        return tuple(self.numbers[piece] for piece in pieces)


def _merged(pieces: list[str], ranks: list[int], best: int) -> list[str]:
    """Merge the pairs of one rank from left to right; ``ranks`` are the ranks of all pairs."""
    merged: list[str] = []
    at = 0
    while at < len(pieces):
        pair = at < len(ranks) and ranks[at] == best
        merged.append(pieces[at] + pieces[at + 1] if pair else pieces[at])
        at += 2 if pair else 1
    return merged


def _cleaned(text: str) -> str:
    # HTML entities that were escaped twice are common in captions from the web.
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def read_merges(path: Path) -> BytePairs:
    """Read a file of merges (gzip): a header line, then one pair per line.

    Raises:
        DataError: it is not text.
        MmindexError: it cannot be read.
    """
    most = _TOKENS - 2 * len(_BYTES) - len(_MARKS)
    merges = [tuple(line.split()) for line in read_lines(path)[1 : most + 1]]
    pieces = [*_BYTES, *(letter + _WORD_END for letter in _BYTES)]
    pieces += ["".join(pair) for pair in merges]
    pieces += _MARKS
    return BytePairs(
        {piece: number for number, piece in enumerate(pieces)},
        {pair: rank for rank, pair in enumerate(merges)},
    )
