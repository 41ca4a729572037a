"""The keyword index of a version, open for searches: BM25 over the words of each image.

BM25 (S. Robertson and H. Zaragoza, The Probabilistic Relevance Framework, 2009) in the form of
Lucene, whose inverse document frequency is never negative. The score of an image is the sum over
the words of

    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + K1 * (1 - B + B * l / L))

with N images, n of them with the word, f times in this image, which has l words; L is the mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import NoInputError
from mmindex.core.modality import Modality
from mmindex.keywords.best import NOTHING, Matches, Norms, Term, best_of
from mmindex.keywords.names import SEGMENTS, has_keywords
from mmindex.keywords.postings import MOST_WORDS, Postings, Segment
from mmindex.keywords.summary import Summary, Weights, inputs_of, read_summary
from mmindex.keywords.words import words
from mmindex.store.snapshot import Snapshot

K1: Final = 1.2
B: Final = 0.75

Int64 = NDArray[np.int64]


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
        every = self._norm(summary.lengths).astype(np.float32)
        least = every[summary.lengths > 0].min(initial=np.inf)
        self._norms = Norms(every, float(least))

    def _norm(self, lengths: NDArray[np.uint32] | int) -> NDArray[np.float64]:
        shares = np.asarray(lengths, dtype=np.float64) / max(1.0, self._mean)
        return np.asarray(K1 * (1 - B + B * shares))

    def best(self, query: Sequence[str], k: int, allowed: Int64 | None = None) -> Matches:
        """Return the best ``k`` images, among the ids ``allowed`` only.

        Args:
            query: different words, see :func:`query_words`.
            k: the number of images.
            allowed: int64 (n,), ids.
        """
        found = [self._parts(word) for word in query]
        rarities = [self._rarity(parts) for parts in found]
        order = sorted(range(len(query)), key=lambda number: -rarities[number])
        only = None if allowed is None else np.zeros(self._rows, dtype=np.bool_)
        if only is not None:
            only[allowed] = True
        best = NOTHING
        for segment in range(len(self._segments)):
            terms = [
                Term(part, rarities[number])
                for number in order
                if (part := _among(found[number][segment], only)) is not None
            ]
            if terms:
                best = best_of(terms, self._norms, k, best, every=len(terms) == len(query))
        return best

    def rarities(self, query: Iterable[str]) -> dict[str, float]:
        """Return the inverse document frequency of each word that some image has."""
        found = {word: self._rarity(self._parts(word)) for word in query}
        return {word: rarity for word, rarity in found.items() if rarity}

    def _parts(self, word: str) -> list[Postings | None]:
        return [segment.find(word) for segment in self._segments]

    def _rarity(self, parts: Iterable[Postings | None]) -> float:
        n = sum(len(part.ids) for part in parts if part is not None)
        return float(np.log1p((self._images - n + 0.5) / (n + 0.5))) if n else 0.0

    def score_of(self, tally: Counter[str], rarities: Mapping[str, float]) -> float:
        """Return the score of an image if it had these words."""
        norm = float(self._norm(tally.total()))
        there = (word for word in rarities if tally[word])
        return sum(rarities[word] * tally[word] / (tally[word] + norm) for word in there)


def _among(postings: Postings | None, only: NDArray[np.bool_] | None) -> Postings | None:
    """Return the postings of these images; None if there are none."""
    if postings is None or only is None:
        return postings
    kept = only[postings.ids]
    return Postings(postings.ids[kept], postings.counts[kept]) if kept.any() else None


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
    """Return the different words of a query, in order, at most ``MOST_WORDS``."""
    return list(islice(dict.fromkeys(words(text)), MOST_WORDS))
