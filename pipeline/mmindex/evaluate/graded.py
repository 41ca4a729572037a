"""Measures for queries with several right answers: mAP@R, R-Precision, nDCG@10, MRR, recall@K.

For a query with R right answers:

- AP@R is the sum of the precision at the rank of each right answer among the first R, divided by
  R (K. Musgrave et al., A Metric Learning Reality Check, ECCV 2020);
- R-Precision is the share of right answers among the first R;
- nDCG@10 has the relevance as gain and log2(rank + 1) as discount, as in trec_eval;
- MRR is the mean of 1 / rank of the first right answer, without a cut-off;
- recall@K is 1 if a right answer is among the first K, as in :mod:`mmindex.evaluate.recall`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.config import EvaluateConfig
from mmindex.core.modality import Modality
from mmindex.evaluate.bootstrap import KS, mean_intervals
from mmindex.evaluate.corpus import (
    Corpus,
    Items,
    Queries,
    caption_queries,
    image_queries,
    sample,
    slices,
)
from mmindex.evaluate.directions import MAX_PAIRS
from mmindex.evaluate.evaluation import JudgedBlock, JudgedFigure, JudgedFigures
from mmindex.evaluate.qrels import Judgements, Qrels
from mmindex.evaluate.recall import exact_scan

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

NDCG_DEPTH: Final = 10
FIGURES: Final = ("map@r", "r_precision", "ndcg@10", "mrr", *(f"r@{k}" for k in KS))
OWN_FIGURES: Final = tuple(f"own_r@{k}" for k in KS)
"""Recall with only the own image or captions of each query as right answers."""

# With fewer queries, intervals are wide; with more right answers each, the work grows.
_MIN_QUERIES: Final = 100


@dataclass(frozen=True, slots=True)
class _Asked:
    """The queries of a direction that have a right answer.

    Attributes:
        rows: int64 (q,), rows of the table of the queries.
        offsets: int64 (q + 1,), the start of the right answers of each query.
        found: int64 (pairs,), rows of the gallery.
        relevance: int64 (pairs,), all above 0.
    """

    rows: Int64
    offsets: Int64
    found: Int64
    relevance: Int64


def per_query(ranks: Int64, relevance: Int64, offsets: Int64) -> Float64:
    """Return the columns :data:`FIGURES` of each query, from 0 to 1: float64 (q, 7).

    Args:
        ranks: int64 (pairs,), the rank of each right answer; different within a query.
        relevance: int64 (pairs,), all above 0.
        offsets: int64 (q + 1,), the start of the pairs of each query; none is empty.
    """
    starts, sizes = offsets[:-1], np.diff(offsets)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((ranks, owner))
    ranked, gain = ranks[order], relevance[order].astype(np.float64)
    number = np.arange(len(ranks)) - starts[owner] + 1
    within = ranked <= sizes[owner]
    best_gain = relevance[np.lexsort((-relevance, owner))].astype(np.float64)

    def total(values: Float64) -> Float64:
        sums: Float64 = np.add.reduceat(values, starts)
        return sums

    dcg = total(np.where(ranked <= NDCG_DEPTH, gain / np.log2(ranked + 1), 0.0))
    ideal = total(np.where(number <= NDCG_DEPTH, best_gain / np.log2(number + 1), 0.0))
    first = ranked[starts]
    columns = [
        total(np.where(within, number / ranked, 0.0)) / sizes,
        total(within.astype(np.float64)) / sizes,
        dcg / ideal,
        1.0 / first,
        *((first <= k).astype(np.float64) for k in KS),
    ]
    return np.stack(columns, axis=1)


def judge(corpus: Corpus, captions: Items, qrels: Qrels, config: EvaluateConfig) -> JudgedFigures:
    """Measure exact search in both directions with the right answers of a file."""
    return JudgedFigures(
        lines=qrels.lines,
        unknown=qrels.unknown,
        duplicates=qrels.duplicates,
        text_to_image=_judge(corpus, captions, Modality.TEXT, qrels.text_to_image, config),
        image_to_text=_judge(corpus, captions, Modality.IMAGE, qrels.image_to_text, config),
    )


def _judge(
    corpus: Corpus,
    captions: Items,
    asked: Modality,
    judgements: Judgements,
    config: EvaluateConfig,
) -> JudgedBlock | None:
    queries, gallery = captions, corpus.images
    if asked is Modality.IMAGE:
        queries, gallery = gallery, queries
    right = judgements.relevance > 0
    judged = len(np.unique(judgements.queries))
    possible = len(np.unique(judgements.queries[right]))
    if not possible:
        return None
    chosen = _asked(judgements, right, gallery.vectors.n, config)
    pairs = Queries(
        queries.vectors,
        queries.id_of_row[np.repeat(chosen.rows, np.diff(chosen.offsets))],
        np.arange(len(chosen.found) + 1),
        chosen.found,
    )
    ranks = exact_scan(pairs, gallery, 1).ranks
    figures = per_query(ranks, chosen.relevance, chosen.offsets)
    images = corpus.image_of_caption[chosen.rows] if asked is Modality.TEXT else chosen.rows
    own = _own_hits(corpus, captions, asked, chosen.rows, gallery)
    values = 100.0 * np.concatenate((figures, own), axis=1)
    means = mean_intervals(values, images, config.seed)
    named = zip((*FIGURES, *OWN_FIGURES), means, strict=True)
    return JudgedBlock(
        queries=len(chosen.rows),
        without_right_answer=judged - possible,
        right_answers=len(chosen.found),
        sampled=len(chosen.rows) < possible,
        figures={name: JudgedFigure(*figure) for name, figure in named},
    )


def _asked(
    judgements: Judgements, right: NDArray[np.bool_], n: int, config: EvaluateConfig
) -> _Asked:
    """Return the queries with a right answer; a seeded sample if they have too many."""
    rows, starts, sizes = np.unique(
        judgements.queries[right], return_index=True, return_counts=True
    )
    affordable = max(_MIN_QUERIES, int(MAX_PAIRS / max(1, n) / sizes.mean()))
    some = sample(len(rows), min(config.max_queries, affordable), config.seed)
    places = slices(starts[some], sizes[some])
    return _Asked(
        rows[some],
        np.concatenate(([0], np.cumsum(sizes[some]))).astype(np.int64),
        judgements.found[right][places],
        judgements.relevance[right][places],
    )


def _own_hits(
    corpus: Corpus, captions: Items, asked: Modality, rows: Int64, gallery: Items
) -> Float64:
    """Return whether the own answers of each query are among the first K; none: never."""
    owners = corpus.image_of_caption
    hits = np.zeros((len(rows), len(KS)))
    if asked is Modality.TEXT:
        known = np.ones(len(rows), dtype=np.bool_)
        queries = caption_queries(captions, owners, rows)
    else:
        known = np.isin(rows, owners)
        queries = image_queries(corpus.images, owners, rows[known])
    if known.any():
        ranks = exact_scan(queries, gallery, 1).ranks
        hits[known] = np.stack([ranks <= k for k in KS], axis=1)
    return hits
