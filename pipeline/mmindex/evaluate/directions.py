"""One direction of an evaluation, measured for each query: exactly, and through the index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmindex.core.config import EvaluateConfig
from mmindex.core.errors import DataError
from mmindex.evaluate import recall
from mmindex.evaluate.corpus import (
    Corpus,
    Items,
    Queries,
    VectorSource,
    caption_queries,
    image_queries,
    sample,
)
from mmindex.evaluate.recall import Recall
from mmindex.search.searcher import Searcher

# Pairs of query and gallery vector for one direction: about 20 seconds on two cores at 512
# dimensions, so that evaluation never takes longer than building. COCO's 25,010 x 5,000 is an
# eighth of it.
MAX_PAIRS = 1_000_000_000
# The minimum number of queries for any corpus: with fewer, R@1 is uncertain by over 3 points.
MIN_QUERIES = 1_000
# Answers per query when an index is measured: recall@10 needs no more.
DEPTH = 10
# Queries per batch: 4096 x 1024 dimensions as float32 are 16 MiB.
_BATCH = 4096

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Direction:
    """The results of all queries in one direction.

    Attributes:
        rows: int64 (q,), the query rows in ``captions`` or ``images``.
        images: int64 (q,), the row of each query in ``images``.
        ranks: int64 (q,), rank of the best correct row with exact search; 1 is first.
        index_ranks: int64 (q,), the same among the first ten of the index; 0 if it is not there.
        right_row, right_score: int64 and float64 (q,), the best correct row and its cosine.
        wrong_id, wrong_score: int64 and float64 (q,), the first wrong one of the ten answers of the
            index, as a vector id; -1 and -inf if all are correct.
        index_recall: recall@10 of the index in percent; None if there is nothing to find.
        sampled: whether the queries are a sample.
    """

    rows: Int64
    images: Int64
    ranks: Int64
    index_ranks: Int64
    right_row: Int64
    right_score: Float64
    wrong_id: Int64
    wrong_score: Float64
    index_recall: float | None
    sampled: bool

    @property
    def exact(self) -> Recall:
        """Recall of exact search."""
        return _summary(self.ranks)

    @property
    def through_index(self) -> Recall:
        """Recall through the index."""
        return _summary(self.index_ranks)


def _summary(ranks: Int64) -> Recall:
    summary = recall.summarize(ranks)
    if summary is None:
        raise DataError("an index without rows in its table", "run `mmindex build`")
    return summary


def text_to_image(
    searcher: Searcher, corpus: Corpus, captions: Items, config: EvaluateConfig
) -> Direction:
    """Measure text to image: every caption searches for its own image."""
    possible = len(corpus.image_of_caption)
    rows = sample(possible, _affordable(corpus.images, config), config.seed)
    queries = caption_queries(captions, corpus.image_of_caption, rows)
    owners = corpus.image_of_caption[rows]
    return _measure(searcher, queries, corpus.images, (rows, owners), len(rows) < possible)


def image_to_text(
    searcher: Searcher, corpus: Corpus, captions: Items, config: EvaluateConfig
) -> Direction:
    """Measure image to text: every image with captions searches for one of them."""
    possible = np.unique(corpus.image_of_caption)
    rows = possible[sample(len(possible), _affordable(captions, config), config.seed)]
    queries = image_queries(corpus.images, corpus.image_of_caption, rows)
    return _measure(searcher, queries, captions, (rows, rows), len(rows) < len(possible))


def _affordable(gallery: Items, config: EvaluateConfig) -> int:
    """Return the largest number of queries for a gallery of this size."""
    by_work = max(MIN_QUERIES, MAX_PAIRS // max(1, gallery.vectors.n))
    return min(config.max_queries, by_work)


def _measure(
    searcher: Searcher,
    queries: Queries,
    gallery: Items,
    rows: tuple[Int64, Int64],
    sampled: bool,
) -> Direction:
    scan = recall.exact_scan(queries, gallery, DEPTH)
    ids, inverse = np.unique(queries.ids, return_inverse=True)
    answers, scores = _ask(searcher, queries.vectors, ids, gallery.vectors, DEPTH)
    answers, scores = answers[inverse], scores[inverse]
    wrong_id, wrong_score = _first_wrong(answers, scores, queries, gallery)
    return Direction(
        rows=rows[0],
        images=rows[1],
        ranks=scan.ranks,
        index_ranks=recall.ranks_in_answers(answers, queries, gallery),
        right_row=scan.best_row,
        right_score=scan.best,
        wrong_id=wrong_id,
        wrong_score=wrong_score,
        index_recall=recall.index_recall(scores, scan.nearest),
        sampled=sampled,
    )


def _ask(
    searcher: Searcher, source: VectorSource, ids: Int64, gallery: VectorSource, depth: int
) -> tuple[Int64, Float64]:
    """Search with the vectors ``ids`` of ``source``.

    Returns:
        int64 (q, depth) answers and their true scores, float64 (q, depth); -1 and -inf if there is
        none.
    """
    answers = np.empty((len(ids), depth), dtype=np.int64)
    scores = np.empty((len(ids), depth))
    for start in range(0, len(ids), _BATCH):
        part = slice(start, start + _BATCH)
        vectors = source.take(ids[part]).astype(np.float32)
        _, answers[part] = searcher.search(vectors, depth)
        scores[part] = recall.scores_of(vectors.astype(np.float64), answers[part], gallery)
    return answers, scores


def _first_wrong(
    answers: Int64, scores: Float64, queries: Queries, gallery: Items
) -> tuple[Int64, Float64]:
    """Return id and score of the first wrong answer of each query; -1 and -inf if there is none."""
    owner = np.repeat(np.arange(len(queries)), np.diff(queries.offsets))
    matches = answers[owner] == gallery.id_of_row[queries.right][:, None]
    wrong = ~np.logical_or.reduceat(matches, queries.offsets[:-1]) & (answers >= 0)
    column = wrong.argmax(axis=1)
    every, some = np.arange(len(queries)), wrong.any(axis=1)
    ids: Int64 = np.where(some, answers[every, column], -1)
    return ids, np.where(some, scores[every, column], -np.inf)


def neighbour_recall(
    searcher: Searcher, vectors: VectorSource, config: EvaluateConfig
) -> float | None:
    """Measure index recall without captions: images search for their nearest other images."""
    live = vectors.live_ids()
    rows = sample(len(live), min(config.max_queries, MIN_QUERIES), config.seed)
    ids = live[rows]
    answers, scores = _ask(searcher, vectors, ids, vectors, DEPTH + 1)
    others = np.where(answers == ids[:, None], -np.inf, scores)
    # The query's own vector is its nearest, so the rest of the truth are its neighbours.
    own = Items(vectors, live)
    asked = Queries(vectors, ids, np.arange(len(ids) + 1), rows)
    truth = recall.exact_scan(asked, own, DEPTH + 1).nearest[:, 1:]
    return recall.index_recall(-np.sort(-others, axis=1)[:, :DEPTH], truth)
