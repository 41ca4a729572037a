"""The objects of a keyword index in a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmindex.store.manifest import Manifest

SUMMARY: Final = "keywords/summary"
SEGMENTS: Final = "keywords/words/"
"""The start of the names of all segments."""


@dataclass(frozen=True, slots=True)
class KeywordFacts:
    """The size of a keyword index: its words, counted in each segment, and its bytes."""

    words: int
    bytes: int


def has_keywords(manifest: Manifest) -> bool:
    """Return whether a version has an object of a keyword index."""
    return manifest.find(SUMMARY) is not None


def keyword_facts(manifest: Manifest) -> KeywordFacts | None:
    """Return the size of the keyword index of a version; None if it has none."""
    if not has_keywords(manifest):
        return None
    segments = manifest.named(SEGMENTS)
    size = sum(ref.bytes for ref in (*segments, manifest.require(SUMMARY)))
    return KeywordFacts(sum(ref.rows for ref in segments), size)
