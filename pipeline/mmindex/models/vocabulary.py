"""Shared parts of the tokenizers: their files and caches."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mmindex.core.errors import DataError, os_errors

# Number of words that a tokenizer caches with their tokens; English captions have about 100,000.
CACHED_WORDS: Final = 200_000


class WordCache(dict[str, tuple[int, ...]]):
    """The tokens of words, computed when they are first used; emptied when it is full.

    Args:
        cut: returns the tokens of a word.
    """

    def __init__(self, cut: Callable[[str], tuple[int, ...]]) -> None:
        super().__init__()
        self._cut = cut

    def __missing__(self, word: str) -> tuple[int, ...]:
        """Compute and keep the tokens of a word."""
        pieces = self._cut(word)
        if len(self) >= CACHED_WORDS:
            self.clear()
        self[word] = pieces
        return pieces


def read_lines(path: Path) -> list[str]:
    """Return the lines of a compressed text file (gzip, UTF-8).

    Raises:
        DataError: it is not compressed text.
        MmindexError: it cannot be read.
    """
    with os_errors(path):
        data = path.read_bytes()
    try:
        return gzip.decompress(data).decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a compressed text file: {error}") from error
