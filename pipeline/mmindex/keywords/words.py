"""Split text into words, the same way for documents and for queries.

A query has no syntax: quotes, brackets, colons and words such as AND are text like any other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

# Part of what a keyword index is made from: change it when `words` returns something else.
RULES: Final = f"1 unicode {unicodedata.unidata_version}"
# Longer words are cut: they are data, not words, and would be stored whole.
MOST_CHARACTERS: Final = 64

# Scripts without spaces between words: Chinese characters, Japanese kana, Korean hangul.
_CJK: Final = (
    "\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3040-\u30ff\u3100-\u318f"
    "\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff"
    "\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_RUN: Final = re.compile(f"[{_CJK}]+|[^{_CJK}]+")
_IS_CJK: Final = re.compile(f"[{_CJK}]")


class _Separators(dict[int, int]):
    """Maps characters that are not part of a word to a space, for ``str.translate``."""

    def __missing__(self, code: int) -> int:
        # Letters, numbers, and the marks that belong to letters in many scripts.
        self[code] = code if unicodedata.category(chr(code))[0] in "LNM" else ord(" ")
        return self[code]


_SEPARATORS: Final = _Separators()


def words(text: str) -> Iterator[str]:
    """Yield the words of a text in order, with repetitions.

    Letters are compared without case and in Unicode's compatibility form (NFKC). A run of Chinese,
    Japanese or Korean characters yields each character and each pair of neighbours.
    """
    folded = text.lower() if text.isascii() else _folded(text)
    found = folded.translate(_SEPARATORS).split()
    if text.isascii() or _IS_CJK.search(folded) is None:  # one search instead of one for each word
        yield from (word[:MOST_CHARACTERS] for word in found)
        return
    for word in found:
        if _IS_CJK.search(word) is None:
            yield word[:MOST_CHARACTERS]
        else:
            yield from _mixed(word)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _mixed(word: str) -> Iterator[str]:
    for run in _RUN.findall(word):
        if _IS_CJK.match(run) is None:
            yield run[:MOST_CHARACTERS]
        else:
            yield from run
            yield from (run[place : place + 2] for place in range(len(run) - 1))
