"""Score lists with and without a right answer, for calibrations.

A corpus does not show which queries have no answer in it, so such queries are created: a caption
searches the corpus without its own image and without the images that are most similar to it.
Leaving out only the image itself is not sufficient, because other images often fit the caption as
well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.evaluate.corpus import (
    Corpus,
    Items,
    Queries,
    caption_queries,
    image_queries,
    sample,
)
from mmindex.search.calibration import CONTEXT
from mmindex.search.searcher import Searcher

SHOWN: Final = 10
"""Hits of each query that are judged, as many as a search shows by default."""

# The share of the gallery that is left out for a query without an answer. The median of the best
# scores is then 0.50 over 1,000 scenes and 0.36 over 159 photographs. For 50 texts about things
# that are in no image it is 0.51 and 0.33, and for captions in the whole gallery 0.68 and 0.47.
_LEFT_OUT: Final = 0.05
_GALLERY_SAMPLE: Final = 1_000
# Pairs that are scored twice in float64: about two seconds on two cores with 512 dimensions.
_MAX_PAIRS: Final = 50_000_000
_MIN_QUERIES: Final = 300
_MAX_QUERIES: Final = 1_200
_ROWS: Final = 2_048  # gallery vectors scored at once

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Lists:
    """The best scores of some queries, descending; -inf beyond the end.

    Attributes:
        matched: float64 (q, CONTEXT), scores in the whole gallery.
        right: bool (q, CONTEXT), which of them are right answers.
        unmatched: float64 (q, CONTEXT), scores in the gallery without the right answers and
            everything similar to them.
        images: int64 (q,), the image of each query, as a vector id.
    """

    matched: Float64
    right: Bools
    unmatched: Float64
    images: Int64

    def __len__(self) -> int:
        return len(self.images)

    @property
    def unique_images(self) -> int:
        """The number of different images."""
        return len(np.unique(self.images))


def score_lists(
    searcher: Searcher, corpus: Corpus, asked: Modality, *, fitting: bool, seed: int
) -> Lists | None:
    """Return the score lists of one half of a corpus; None without queries.

    The vector id determines in which half an image and all its captions are.

    Args:
        searcher: the searcher of the side that is searched.
        corpus: the corpus.
        asked: the side of the queries.
        fitting: the half for fitting a calibration; otherwise the half for measuring it.
        seed: the seed of samples.
    """
    if corpus.captions is None:
        return None
    owners = corpus.image_of_caption
    of_half = corpus.images.id_of_row % 2 == (0 if fitting else 1)
    if asked is Modality.TEXT:
        gallery: Items = corpus.images
        rows = _some(np.flatnonzero(of_half[owners]), gallery, seed)
        queries = caption_queries(corpus.captions, owners, rows)
        images = corpus.images.id_of_row[owners[rows]]
    else:
        gallery = corpus.captions
        known = np.unique(owners)
        rows = _some(known[of_half[known]], gallery, seed)
        queries = image_queries(corpus.images, owners, rows)
        images = corpus.images.id_of_row[rows]
    if not len(rows):
        return None
    vectors = queries.vectors.take(queries.ids).astype(np.float32)
    scores, ids = searcher.search(vectors, SHOWN, context=CONTEXT)
    right = _are_right(ids, queries, gallery)
    return Lists(scores.astype(np.float64), right, _unmatched(queries, gallery, seed), images)


def _some(rows: Int64, gallery: Items, seed: int) -> Int64:
    """Return a sample of rows; the larger the gallery, the smaller the sample."""
    affordable = max(_MIN_QUERIES, _MAX_PAIRS // max(1, gallery.vectors.n))
    return rows[sample(len(rows), min(_MAX_QUERIES, affordable), seed)]


def _right_pairs(queries: Queries, gallery: Items) -> tuple[Int64, Int64]:
    """Return queries with ids of their right answers: two int64 (pairs,)."""
    owner = np.repeat(np.arange(len(queries)), np.diff(queries.offsets))
    return owner, gallery.id_of_row[queries.right]


def _are_right(ids: Int64, queries: Queries, gallery: Items) -> Bools:
    """Return which answers are right: bool, with the shape of ``ids`` (q, k)."""
    owner, right = _right_pairs(queries, gallery)
    n = gallery.vectors.n
    pairs = np.unique(owner * n + right)
    asked = np.arange(len(ids))[:, None] * n + ids
    found: Bools = np.isin(asked, pairs) & (ids >= 0)
    return found


def _unmatched(queries: Queries, gallery: Items, seed: int) -> Float64:
    """Return the best scores among vectors that are not similar to the first right answer.

    Returns:
        float64 (q, CONTEXT), descending.
    """
    asked = queries.vectors.take(queries.ids).astype(np.float64)
    owner, right = _right_pairs(queries, gallery)
    first = gallery.vectors.take(right[queries.offsets[:-1]]).astype(np.float64)
    live = gallery.vectors.live_ids()
    some = gallery.vectors.take(live[sample(len(live), _GALLERY_SAMPLE, seed)])
    limit = np.quantile(first @ some.astype(np.float64).T, 1 - _LEFT_OUT, axis=1)
    best = np.full((len(queries), CONTEXT), -np.inf)
    for ids, block in gallery.vectors.blocks(_ROWS):
        part = block.astype(np.float64).T
        scores = asked @ part
        scores[first @ part >= limit[:, None]] = -np.inf
        at = np.minimum(np.searchsorted(ids, right), len(ids) - 1)
        here = ids[at] == right
        scores[owner[here], at[here]] = -np.inf
        both = np.concatenate((best, scores), axis=1)
        best = np.partition(both, -CONTEXT, axis=1)[:, -CONTEXT:]
    return -np.sort(-best, axis=1)
