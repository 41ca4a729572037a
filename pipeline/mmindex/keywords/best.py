"""Find the best images for the words of a query without scoring every image.

The words are scored from the rarest to the most common. As soon as the ``k``-th score is higher
than what all further words can add to an image, only images that are already found can be among
the best, and only those are looked up for the further words (MaxScore; H. Turtle and J. Flood,
Query Evaluation: Strategies and Optimizations, 1995). The result is that of scoring all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmindex.keywords.postings import Counts, Int32, Postings

Float32 = NDArray[np.float32]
Bools = NDArray[np.bool_]

# Sums of float32 numbers can exceed their bound by rounding.
_SLACK: Final = 1.001
# Looking up one image takes as long as scoring this many.
_LOOK_UP: Final = 4


@dataclass(frozen=True, slots=True)
class Matches:
    """The images with at least one word of a query: first those with all words, each best first.

    Attributes:
        ids: int64 (n,).
        scores: float32 (n,), BM25; equal scores by lower id.
        complete: number of images with all words.
    """

    ids: NDArray[np.int64]
    scores: Float32
    complete: int


def ranked(
    ids: NDArray[np.signedinteger[Any]], scores: Float32, complete: Bools, k: int
) -> Matches:
    """Return the best ``k`` images; ``complete`` marks those with all words."""
    order = np.lexsort((ids, -scores, ~complete))[:k]
    return Matches(
        ids[order].astype(np.int64), scores[order], int(np.count_nonzero(complete[order]))
    )


NOTHING: Final = Matches(np.empty(0, np.int64), np.empty(0, np.float32), 0)


@dataclass(frozen=True, slots=True)
class Term:
    """A word of a query, with the images of one segment that have it.

    Attributes:
        postings: the images, at least one.
        rarity: the inverse document frequency of the word.
    """

    postings: Postings
    rarity: float

    def scores(self, counts: Counts, norms: Float32) -> Float32:
        """Return what the word adds to the scores of images with these counts and norms."""
        shares = counts.astype(np.float32)
        shares /= shares + norms
        shares *= np.float32(self.rarity)
        return shares

    def most(self, least_norm: float) -> float:
        """Return the highest score that the word can add."""
        count = float(self.postings.counts.max())
        return self.rarity * count / (count + least_norm)


@dataclass(frozen=True, slots=True)
class Norms:
    """The part of BM25 that depends on the length of an image: float32 (ids,), and the least."""

    all: Float32
    least: float


def best_of(
    terms: Sequence[Term], norms: Norms, k: int, before: Matches, *, every: bool
) -> Matches:
    """Combine the best images of one segment with those of the segments before it.

    Args:
        terms: the words that occur in the segment, the rarest first.
        norms: of all images.
        k: the number of images.
        before: the best ``k`` images of the segments before.
        every: whether these are all words of the query.
    """
    ids = _common([term.postings.ids for term in terms]) if every else np.empty(0, np.int32)
    scores = np.zeros(len(ids), dtype=np.float32)
    for term in terms:
        _add(term, norms, ids, scores)
    complete = np.ones(len(ids), dtype=np.bool_)
    if len(ids) + before.complete < k:
        least = float(before.scores[-1]) if len(before.ids) == k else 0.0
        # The best k of all images include enough others, whichever of them have all words.
        others, sums = _highest(terms, norms, k, least)
        new = ~np.isin(others, ids)
        ids = np.concatenate([ids, others[new]])
        scores = np.concatenate([scores, sums[new]])
        complete = np.arange(len(ids)) < len(complete)
    return ranked(
        np.concatenate([before.ids, ids]),
        np.concatenate([before.scores, scores]),
        np.concatenate([np.arange(len(before.ids)) < before.complete, complete]),
        k,
    )


def _highest(terms: Sequence[Term], norms: Norms, k: int, least: float) -> tuple[Int32, Float32]:
    """Return images with their scores.

    Among them are the best ``k``, except those with scores below ``least``.
    """
    low = min(int(term.postings.ids[0]) for term in terms)
    high = max(int(term.postings.ids[-1]) for term in terms)
    bounds = np.array([term.most(norms.least) * _SLACK for term in terms])
    further = [*np.cumsum(bounds[::-1])[::-1].tolist(), 0.0]  # what all words from here can add
    scores = np.zeros(high - low + 1, dtype=np.float32)
    scored = 0
    while scored < len(terms):
        term = terms[scored]
        if least > further[scored]:
            possible = np.count_nonzero(scores >= least - further[scored])
            if possible * _LOOK_UP < len(term.postings.ids):
                break
        places = term.postings.ids.astype(np.intp)  # once, not for each access
        added = term.scores(term.postings.counts, norms.all.take(places))
        places -= low
        added += scores.take(places)
        scores[places] = added
        least = max(least, _kth(added, k))
        scored += 1
    lowest = least - further[scored]
    kept = np.flatnonzero(scores >= lowest if lowest > 0 else scores > 0)
    ids, sums = (kept + low).astype(np.int32), scores[kept]
    for number in range(scored, len(terms)):
        least = max(least, _kth(sums, k))
        fine = sums >= least - further[number]
        ids, sums = ids[fine], sums[fine]
        _add(terms[number], norms, ids, sums)
    return ids, sums


def _kth(scores: Float32, k: int) -> float:
    """Return the ``k``-th highest score; 0 if there are fewer."""
    place = len(scores) - k
    return float(np.partition(scores, place)[place]) if place >= 0 else 0.0


def _add(term: Term, norms: Norms, ids: Int32, scores: Float32) -> None:
    """Add what a word adds to the scores of these images."""
    places, there = _find(term.postings.ids, ids)
    counts = term.postings.counts[places[there]]
    scores[there] += term.scores(counts, norms.all[ids[there]])


def _common(lists: Sequence[Int32]) -> Int32:
    """Return the ids that are in all lists; each is ascending and has an id once."""
    shortest, *others = sorted(lists, key=len)
    for one in others:
        shortest = shortest[_find(one, shortest)[1]]
    return shortest


def _find(among: Int32, ids: Int32) -> tuple[NDArray[np.intp], Bools]:
    """Return the place of each id in an ascending list, and whether it is there at all."""
    places = np.searchsorted(among, ids)
    places[places == len(among)] = 0
    return places, among[places] == ids
