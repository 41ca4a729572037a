"""Rank the images for one query: by vectors, by words, or by both.

Both rankings are combined by their ranks (reciprocal rank fusion, G. Cormack et al., SIGIR 2009),
because cosine similarities and BM25 have no common scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmindex.keywords.best import Matches
from mmindex.keywords.index import KeywordIndex
from mmindex.keywords.summary import Weights
from mmindex.search.calibration import CONTEXT
from mmindex.search.hits import Limit
from mmindex.search.searcher import Searcher
from mmindex.store.vectors import Vectors

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

By: TypeAlias = Literal["meaning", "words", "both"]
"""What images are ranked by: the vector of a text, its words, or both."""
RANK_OFFSET: Final = 60
"""The constant of reciprocal rank fusion, from the paper."""
LEAST_DEPTH: Final = 100
"""Least number of hits of each ranking that are combined."""


@dataclass(frozen=True, slots=True)
class Found:
    """The best images, in order.

    Attributes:
        ids: int64 (n,).
        scores: float32 (n,).
        ended: whether a deeper search would find no more images above the lowest wanted score.
        context: float64 (CONTEXT,), the best scores of all images, see :mod:`.calibration`; None:
            the hits have no probabilities.
        cosine: whether the scores are cosine similarities.
    """

    ids: Int64
    scores: Float32
    ended: bool
    context: Float64 | None = None
    cosine: bool = True


Find: TypeAlias = Callable[[int], Found]
"""Returns the given number of best images, fewer if there are no more."""


def by_vector(searcher: Searcher, vector: Float32, ids: Int64 | None, limit: Limit) -> Find:
    """Rank by cosine similarity with a vector: float32 (dim,), unit length."""

    def find(depth: int) -> Found:
        [every], [best] = searcher.search(vector[None], depth, ids, context=CONTEXT)
        scores, found = every[:depth], best[:depth]
        wanted = found >= 0
        if limit.min_score is not None:
            wanted &= scores >= limit.min_score
        context = every[:CONTEXT].astype(np.float64)
        return Found(found[wanted], scores[wanted], not wanted.all(), context)

    return find


def by_words(keywords: KeywordIndex, words: list[str], ids: Int64 | None) -> Find:
    """Rank by words; scores are BM25."""

    def find(depth: int) -> Found:
        matches = keywords.best(words, depth, ids)
        return Found(matches.ids, matches.scores, len(matches.ids) < depth, cosine=False)

    return find


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a hybrid query.

    Attributes:
        keywords: the index.
        words: the words.
        ids: search only these ids, ascending; None: all.
        min_score: the lowest cosine similarity of a hit; None: any.
    """

    keywords: KeywordIndex
    words: list[str]
    ids: Int64 | None
    min_score: float | None


def by_both(near: Find, vector: Float32, vectors: Vectors, asked: Words) -> Find:
    """Rank by a vector and by words; scores are cosine similarities with the vector.

    Args:
        near: the ranking by the vector.
        vector: float32 (dim,), unit length.
        vectors: those of the images.
        asked: the words.
    """

    def find(depth: int) -> Found:
        each = max(depth, LEAST_DEPTH)
        close = near(each)
        matches = asked.keywords.best(asked.words, each, asked.ids)
        ids = fuse(close.ids, matches, asked.keywords.weights)
        scores = _similarities(ids, close, vector, vectors)
        if asked.min_score is not None:
            kept = scores >= asked.min_score
            ids, scores = ids[kept], scores[kept]
        return Found(ids[:depth], scores[:depth], close.ended)

    return find


def fuse(near: Int64, matches: Matches, weights: Weights) -> Int64:
    """Combine two rankings: ids by the sum of their weights over ``RANK_OFFSET`` + rank.

    Args:
        near: the ranking by vectors, int64 (n,), with a weight of 1.
        matches: the ranking by words.
        weights: the weights of the ranking by words. Images with a weight of 0 are only in the
            result if they are also in ``near``.

    Returns:
        int64 (m,), each id once, best first; equal sums in the order of ``near``.
    """
    factors = np.full(len(matches.ids), weights.partial)
    factors[: matches.complete] = weights.complete
    said = matches.ids[factors > 0]
    ids = np.concatenate([near, said])
    shares = np.concatenate([np.ones(len(near)), factors[factors > 0]])
    ranks = np.concatenate([np.arange(len(near)), np.flatnonzero(factors > 0)]) + 1
    unique, first, places = np.unique(ids, return_index=True, return_inverse=True)
    sums = np.bincount(places, shares / (RANK_OFFSET + ranks), minlength=len(unique))
    ordered: Int64 = unique[np.lexsort((first, -sums))]
    return ordered


def _similarities(ids: Int64, close: Found, vector: Float32, vectors: Vectors) -> Float32:
    """Return the cosine similarity of each id with the vector."""
    order = np.argsort(close.ids)
    places = np.searchsorted(close.ids, ids, sorter=order)
    places[places == len(order)] = 0
    scores = np.empty(len(ids), dtype=np.float32)
    known = np.zeros(len(ids), dtype=np.bool_)
    if len(order):
        known = close.ids[order[places]] == ids
        scores[known] = close.scores[order[places[known]]]
    scores[~known] = vectors.take(ids[~known]).astype(np.float32) @ vector
    return scores
