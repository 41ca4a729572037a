"""A byte-pair vocabulary learned from captions, in the file format of open_clip's tokenizer.

Byte-pair encoding after Sennrich et al. 2016 (arXiv 1508.07909). The file is what
``open_clip.tokenizer.SimpleTokenizer`` reads: gzip, one header line, one merge a line. Its 512
single bytes are always there, so any script passes through.
"""

from __future__ import annotations

import gzip
import itertools
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from open_clip.tokenizer import bytes_to_unicode, get_clean_fn

MERGES_FILE: Final = "bpe_merges.txt.gz"
BYTE_TOKENS: Final = 512  # each byte inside a word and at a word's end
SPECIAL_TOKENS: Final = 2  # start and end of text
_HEADER: Final = "#version: mmindex"
# How the tokenizer splits before it merges, but for numerals that are no digits.
_WORDS: Final = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+")

Pair = tuple[str, str]


def vocabulary_size(merges: int) -> int:
    """How many tokens a tokenizer with so many merges has."""
    return BYTE_TOKENS + merges + SPECIAL_TOKENS


def learn_merges(captions: Iterable[str], limit: int) -> list[Pair]:
    """The pairs to merge, most frequent first; ties in alphabetical order.

    Stops early when every word is one token, so a small corpus gives fewer than ``limit``.
    """
    words = _count_words(captions)
    merges: list[Pair] = []
    while len(merges) < limit:
        pairs: Counter[Pair] = Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({_merged(word, best): count for word, count in words.items()})
    return merges


def write_merges(path: Path, merges: Iterable[Pair]) -> None:
    """Write the file; the same merges give the same bytes (no time stamp inside)."""
    # No newline at the end: the reader would take an empty last line for a merge.
    lines = [_HEADER, *(" ".join(pair) for pair in merges)]
    path.write_bytes(gzip.compress("\n".join(lines).encode("utf-8"), mtime=0))


def _count_words(captions: Iterable[str]) -> Counter[tuple[str, ...]]:
    clean = get_clean_fn("lower")
    letters = bytes_to_unicode()
    texts = Counter(word for caption in captions for word in _WORDS.findall(clean(caption)))
    words: Counter[tuple[str, ...]] = Counter()
    for text, count in texts.items():
        spelt = [letters[byte] for byte in text.encode("utf-8")]
        words[(*spelt[:-1], spelt[-1] + "</w>")] += count
    return words


def _merged(word: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    merged: list[str] = []
    at = 0
    while at < len(word):
        if word[at : at + 2] == pair:
            merged.append(pair[0] + pair[1])
            at += 2
        else:
            merged.append(word[at])
            at += 1
    return tuple(merged)
