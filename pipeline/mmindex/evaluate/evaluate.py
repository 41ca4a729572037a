"""The stage that measures: recall both ways, exact and through the index, and index recall."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmindex.config import EvaluateConfig
from mmindex.errors import DataError, NoInputError
from mmindex.evaluate import recall
from mmindex.evaluate.corpus import Corpus, caption_queries, image_queries, load_corpus, sample
from mmindex.evaluate.evaluation import (
    Evaluation,
    IndexQueries,
    IndexRecall,
    QueryCounts,
    RecallBlock,
)
from mmindex.evaluate.items import Items, Queries, VectorSource
from mmindex.evaluate.recall import Recall
from mmindex.progress import get_logger
from mmindex.records import Modality
from mmindex.search.searcher import Searcher
from mmindex.store.manifest import EncoderInfo, Manifest
from mmindex.store.objects import Objects

# Pairs of query and gallery vector scored for one direction: some 20 seconds on two cores at 512
# dimensions, so that measuring never outweighs building. COCO's 25,010 x 5,000 is an eighth of it.
MAX_PAIRS = 1_000_000_000
# However large the corpus, this many queries are asked: below, R@1 is uncertain by over 3 points.
MIN_QUERIES = 1_000
# Answers looked at when an index is measured: recall@10 needs no more.
DEPTH = 10
# Queries searched at once: 4096 x 1024 dimensions as float32 are 16 MiB.
_BATCH = 4096

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Direction:
    """One direction, measured; ``sampled``: not every query that could be asked was."""

    exact: Recall
    through_index: Recall
    index_recall: float | None
    sampled: bool


def evaluate(objects: Objects, manifest: Manifest, config: EvaluateConfig) -> Evaluation:
    """Measure a version that has been indexed; nothing is written.

    Args:
        objects: the store's objects.
        manifest: the version, or the draft of one: tables, ids, vectors and indexes.
        config: the largest number of queries, and the seed of samples.

    Raises:
        NoInputError: encode or index has not run.
        DataError: tables, ids and vectors do not fit together, or an object is damaged.
    """
    if manifest.encoder is None:
        raise NoInputError("encode has not run yet", "run `mmindex encode` first")
    corpus = load_corpus(objects, manifest)
    images = Searcher(objects, manifest, Modality.IMAGE)
    if corpus.captions is None:
        neighbours = _neighbour_recall(images, corpus.images.vectors, config)
        evaluation = _blank(manifest, manifest.encoder, corpus, config, neighbours)
    else:
        texts = Searcher(objects, manifest, Modality.TEXT)
        evaluation = _filled(
            _blank(manifest, manifest.encoder, corpus, config, None),
            to_image=_text_to_image(images, corpus, corpus.captions, config),
            to_text=_image_to_text(texts, corpus, corpus.captions, config),
        )
    _log(evaluation)
    return evaluation


def _blank(
    manifest: Manifest,
    encoder: EncoderInfo,
    corpus: Corpus,
    config: EvaluateConfig,
    neighbours: float | None,
) -> Evaluation:
    """What can be said of a corpus without captions."""
    return Evaluation(
        version=manifest.version,
        model=f"{encoder.model} {encoder.pretrained}".strip(),
        images=len(corpus.images.id_of_row),
        captions=len(corpus.image_of_caption),
        protocol="hit@k",
        text_to_image=None,
        image_to_text=None,
        text_to_image_index=None,
        image_to_text_index=None,
        index_recall=IndexRecall(image=_rounded(neighbours), text=None),
        queries=QueryCounts(text_to_image=0, image_to_text=0),
        index_queries=IndexQueries(image="images", text=None),
        sampled=False,
        seed=config.seed,
        trained=encoder.trained,
    )


def _filled(blank: Evaluation, *, to_image: _Direction, to_text: _Direction) -> Evaluation:
    return msgspec.structs.replace(
        blank,
        text_to_image=_block(to_image.exact),
        image_to_text=_block(to_text.exact),
        text_to_image_index=_block(to_image.through_index),
        image_to_text_index=_block(to_text.through_index),
        index_recall=IndexRecall(
            image=_rounded(to_image.index_recall), text=_rounded(to_text.index_recall)
        ),
        queries=QueryCounts(
            text_to_image=to_image.exact.queries, image_to_text=to_text.exact.queries
        ),
        index_queries=IndexQueries(image="captions", text="images"),
        sampled=to_image.sampled or to_text.sampled,
    )


def _text_to_image(
    searcher: Searcher, corpus: Corpus, captions: Items, config: EvaluateConfig
) -> _Direction:
    """Every caption asks for its own image."""
    possible = len(corpus.image_of_caption)
    rows = sample(possible, _affordable(corpus.images, config), config.seed)
    queries = caption_queries(captions, corpus.image_of_caption, rows)
    return _measure(searcher, queries, corpus.images, sampled=len(rows) < possible)


def _image_to_text(
    searcher: Searcher, corpus: Corpus, captions: Items, config: EvaluateConfig
) -> _Direction:
    """Every image that has captions asks for one of them."""
    possible = np.unique(corpus.image_of_caption)
    rows = possible[sample(len(possible), _affordable(captions, config), config.seed)]
    queries = image_queries(corpus.images, corpus.image_of_caption, rows)
    return _measure(searcher, queries, captions, sampled=len(rows) < len(possible))


def _affordable(gallery: Items, config: EvaluateConfig) -> int:
    """How many queries may be asked of a gallery."""
    by_work = max(MIN_QUERIES, MAX_PAIRS // max(1, gallery.vectors.n))
    return min(config.max_queries, by_work)


def _measure(searcher: Searcher, queries: Queries, gallery: Items, *, sampled: bool) -> _Direction:
    scan = recall.exact_scan(queries, gallery, DEPTH)
    ids, inverse = np.unique(queries.ids, return_inverse=True)
    answers, scores = _ask(searcher, queries.vectors, ids, gallery.vectors, DEPTH)
    exact = recall.summarize(scan.ranks)
    through = recall.summarize(recall.ranks_in_answers(answers[inverse], queries, gallery))
    if exact is None or through is None:
        raise DataError("an index without rows in its table", "run `mmindex build`")
    return _Direction(exact, through, recall.index_recall(scores[inverse], scan.nearest), sampled)


def _ask(
    searcher: Searcher, source: VectorSource, ids: Int64, gallery: VectorSource, depth: int
) -> tuple[Int64, Float64]:
    """Search with the vectors ``ids`` of ``source``.

    Returns:
        int64 (q, depth) answers, -1 where there is none, and their true scores, float64
        (q, depth), -inf where there is none.
    """
    answers = np.empty((len(ids), depth), dtype=np.int64)
    scores = np.empty((len(ids), depth))
    for start in range(0, len(ids), _BATCH):
        part = slice(start, start + _BATCH)
        vectors = source.take(ids[part]).astype(np.float32)
        _, answers[part] = searcher.search(vectors, depth)
        scores[part] = recall.scores_of(vectors.astype(np.float64), answers[part], gallery)
    return answers, scores


def _neighbour_recall(
    searcher: Searcher, vectors: VectorSource, config: EvaluateConfig
) -> float | None:
    """Index recall where there are no captions: images ask for their nearest other images."""
    ids = sample(vectors.n, min(config.max_queries, MIN_QUERIES), config.seed)
    answers, scores = _ask(searcher, vectors, ids, vectors, DEPTH + 1)
    others = np.where(answers == ids[:, None], -np.inf, scores)
    # The query's own vector is its nearest, so the rest of the truth are its neighbours.
    own = Items(vectors, np.arange(vectors.n))
    asked = Queries(vectors, ids, np.arange(len(ids) + 1), ids)
    truth = recall.exact_scan(asked, own, DEPTH + 1).nearest[:, 1:]
    return recall.index_recall(-np.sort(-others, axis=1)[:, :DEPTH], truth)


def _block(measured: Recall) -> RecallBlock:
    # Four digits tell any two counts of up to a million queries apart.
    return RecallBlock(
        r1=round(measured.r1, 4),
        r5=round(measured.r5, 4),
        r10=round(measured.r10, 4),
        medr=measured.medr,
    )


def _rounded(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 4)


def _log(evaluation: Evaluation) -> None:
    log = get_logger("evaluate")
    if not evaluation.trained:
        log.warning("the model is untrained: these figures mean nothing")
    if evaluation.sampled:
        log.info("measured with a sample of the queries", seed=evaluation.seed)
