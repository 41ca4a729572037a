"""The keyword index of a version, open for searches: BM25 over the words of each image.

BM25 (S. Robertson and H. Zaragoza, The Probabilistic Relevance Framework, 2009) in the form of
Lucene, whose inverse document frequency is never negative. The score of an image is the sum over
the words of

    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + K1 * (1 - B + B * l / L))

with N images, n of them with the word, f times in this image, which has l words; L is the mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import NoInputError
from mmindex.core.modality import Modality
from mmindex.keywords.postings import SEGMENTS, Postings, Segment
from mmindex.keywords.summary import SUMMARY, Summary, Weights, inputs_of, read_summary
from mmindex.keywords.words import words
from mmindex.store.manifest import Manifest
from mmindex.store.snapshot import Snapshot

K1: Final = 1.2
B: Final = 0.75

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Matches:
    """The images with at least one word of a query: first those with all words, each best first.

    Attributes:
        ids: int64 (n,).
        scores: float32 (n,), BM25; equal scores by lower id.
        complete: number of images with all words.
    """

    ids: Int64
    scores: Float32
    complete: int


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of all images for one query.

    Attributes:
        scores: float32 (ids,), BM25.
        found: uint32 (ids,), how many of the query's words the image has.
        most: number of different words in the query.
        rarity: the inverse document frequency of each word that some image has.
    """

    scores: Float32
    found: NDArray[np.uint32]
    most: int
    rarity: dict[str, float]

    def best(self, k: int, allowed: Int64 | None = None) -> Matches:
        """Return the best ``k`` images, among the ids ``allowed`` only."""
        ids = np.flatnonzero(self.found)
        if allowed is not None:
            ids = allowed[self.found[allowed] > 0]
        complete = ids[self.found[ids] == self.most]
        parts = [_best(self.scores, complete, k)]
        if len(complete) < k:
            partial = ids[self.found[ids] < self.most]
            parts.append(_best(self.scores, partial, k - len(complete)))
        ids = np.concatenate(parts)
        return Matches(ids, self.scores[ids], len(parts[0]))


def _best(scores: Float32, ids: Int64, k: int) -> Int64:
    """Return the ``k`` ids with the highest scores, best first, equal scores by lower id."""
    mine = scores[ids]
    if len(ids) > k:
        least = np.partition(mine, len(mine) - k)[len(mine) - k]
        ids, mine = ids[mine >= least], mine[mine >= least]
    return ids[np.lexsort((ids, -mine))[:k]]


class KeywordIndex:
    """Searches the words of one version.

    Attributes:
        weights: how much words count in a hybrid search.
        words: number of different words, counted in each segment.
    """

    def __init__(self, summary: Summary, segments: Iterable[Segment]) -> None:
        self.weights: Weights = summary.weights
        self._segments = tuple(segments)
        self.words = sum(segment.size for segment in self._segments)
        self._rows = len(summary.lengths)
        self._images = int(np.count_nonzero(summary.lengths))
        self._mean = float(summary.lengths.sum(dtype=np.int64)) / max(1, self._images)
        self._norms = self._norm(summary.lengths).astype(np.float32)

    def _norm(self, lengths: NDArray[np.uint32] | int) -> NDArray[np.float64]:
        shares = np.asarray(lengths, dtype=np.float64) / max(1.0, self._mean)
        return np.asarray(K1 * (1 - B + B * shares))

    def score(self, query: Iterable[str]) -> Scores:
        """Score all images for the words of a query; repeated words count once."""
        wanted = list(dict.fromkeys(query))
        scores = np.zeros(self._rows, dtype=np.float32)
        found = np.zeros(self._rows, dtype=np.uint32)
        rarity = {}
        for word in wanted:
            parts = [part for one in self._segments if (part := one.find(word)) is not None]
            if parts:
                rarity[word] = self._rarity(parts)
            for part in parts:
                counts = part.counts.astype(np.float32)
                counts /= counts + self._norms[part.ids]
                scores[part.ids] += np.float32(rarity[word]) * counts  # an id occurs once
                found[part.ids] += 1
        return Scores(scores, found, len(wanted), rarity)

    def _rarity(self, parts: Iterable[Postings]) -> float:
        n = sum(len(part.ids) for part in parts)
        return float(np.log1p((self._images - n + 0.5) / (n + 0.5)))

    def score_of(self, tally: Counter[str], scored: Scores) -> tuple[float, int]:
        """Return the score that an image with other words would have, and how many it has."""
        norm = float(self._norm(tally.total()))
        there = [word for word in scored.rarity if tally[word]]
        total = sum(scored.rarity[word] * tally[word] / (tally[word] + norm) for word in there)
        return total, len(there)


def has_keywords(manifest: Manifest) -> bool:
    """Return whether a version has an object of a keyword index."""
    return manifest.find(SUMMARY) is not None


def open_keywords(snapshot: Snapshot) -> KeywordIndex:
    """Open the keyword index of a version.

    Raises:
        NoInputError: the version has none, or an older release has changed the corpus since.
        DataError: it is damaged.
    """
    manifest = snapshot.manifest
    snapshot.index(Modality.IMAGE)
    if not has_keywords(manifest):
        raise NoInputError(
            f"version {manifest.version} has no keyword index",
            "run `mmindex index` to add it; the setting `index.keywords` must be on",
        )
    summary = read_summary(snapshot)
    if summary.inputs != inputs_of(manifest):
        raise NoInputError(
            f"the keyword index of version {manifest.version} belongs to an older version",
            "run `mmindex index` to build it again",
        )
    refs = manifest.named(SEGMENTS)
    return KeywordIndex(summary, [Segment(snapshot.objects, ref) for ref in refs])


def query_words(text: str) -> list[str]:
    """Return the different words of a query, in order."""
    return list(dict.fromkeys(words(text)))
