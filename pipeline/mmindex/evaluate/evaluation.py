"""The results of an evaluation, as in a manifest and in ``evaluate --format json``."""

from __future__ import annotations

import msgspec

from mmindex.store.manifest import Record


class RecallBlock(Record, frozen=True):
    """One direction: recall in percent, and the median rank.

    ``medr`` is null if the answer of the median query is not among the first ten of an index,
    because its rank is then unknown.
    """

    r1: float = msgspec.field(name="r@1")
    r5: float = msgspec.field(name="r@5")
    r10: float = msgspec.field(name="r@10")
    medr: float | None


class IndexRecall(Record, frozen=True):
    """Recall@10 of each index in percent; null if there is no index, or there are no queries."""

    image: float | None
    text: float | None


class QueryCounts(Record, frozen=True):
    """The number of queries in each direction."""

    text_to_image: int
    image_to_text: int


class IndexQueries(Record, frozen=True):
    """The queries for the recall of each index: ``captions``, ``images``, or null.

    Without captions, images search for their neighbours, without themselves.
    """

    image: str | None
    text: str | None


class CeilingBlock(Record, frozen=True):
    """The best expected recall of one direction, in percent."""

    r1: float = msgspec.field(name="r@1")
    r5: float = msgspec.field(name="r@5")
    r10: float = msgspec.field(name="r@10")


class Ceiling(Record, frozen=True):
    """The best average recall that any model can reach: some captions describe several images."""

    text_to_image: CeilingBlock
    image_to_text: CeilingBlock


class ReliabilityBin(Record, frozen=True):
    """Hits with similar probabilities: from ``above`` to 0.1 higher, where the next bin begins.

    ``probability`` is their mean, ``right`` the share of right answers, both from 0 to 1 and null
    without hits.
    """

    above: float
    hits: int
    probability: float | None
    right: float | None


class ReliabilityFigures(Record, frozen=True):
    """Expected calibration error with its 95 % interval, 0 to 1, and its bins."""

    ece: float
    ece_low: float
    ece_high: float
    bins: tuple[ReliabilityBin, ...]


class GoodHits(Record, frozen=True):
    """A rule that keeps some hits, in percent.

    ``right_lost`` is the share of right answers that it drops, ``wrong_kept`` that of wrong hits
    that it keeps, ``nothing`` that of queries without an answer of which it keeps no hit.
    """

    right_lost: float
    wrong_kept: float
    nothing: float


class Reliability(Record, frozen=True):
    """How far the probabilities of one direction can be trusted, on held-out queries.

    Every query counts twice: with its answer in the gallery, and without it and everything similar.
    ``hits`` are the first ten, ``good`` is what ``query --good`` keeps, and ``flat_threshold`` is a
    threshold on scores that loses as many right answers on the fitted queries.
    """

    fitted_queries: int
    fitted_images: int
    queries: int
    images: int
    hits: ReliabilityFigures
    first_hits: ReliabilityFigures
    first_hits_flat_threshold: ReliabilityFigures
    good: GoodHits
    flat_threshold: GoodHits


class Reliabilities(Record, frozen=True):
    """The reliability of each direction; null where there is no calibration."""

    text_to_image: Reliability | None
    image_to_text: Reliability | None


class JudgedFigure(Record, frozen=True):
    """A figure and its 95 % interval, in percent."""

    value: float
    low: float
    high: float


class JudgedBlock(Record, frozen=True):
    """One direction, measured with exact search and the right answers of a file.

    ``figures`` has ``map@r``, ``r_precision``, ``ndcg@10``, ``mrr`` and ``r@K``, and for the same
    queries ``own_r@K``: recall if only the own image or captions were right.
    ``without_right_answer`` counts judged queries that are left out.
    """

    queries: int
    without_right_answer: int
    right_answers: int
    sampled: bool
    figures: dict[str, JudgedFigure]


class JudgedFigures(Record, frozen=True):
    """The figures for a file of judgements; a direction without judgements is null."""

    lines: int
    unknown: int
    duplicates: int
    text_to_image: JudgedBlock | None
    image_to_text: JudgedBlock | None


class Evaluation(Record, frozen=True):
    """Recall of one version; percentages are 0 to 100.

    The first two blocks are exact search (the quality of the model), and the ``_index`` blocks are
    searches through the index. All four are null for a corpus without captions. ``sampled`` is true
    if a direction was measured with a seeded sample of queries, always over the whole gallery.
    ``trained`` is false for random weights, whose figures are meaningless. ``ceiling`` is known
    only for drawn scenes, ``reliability`` only for versions with calibrations.
    """

    version: int
    model: str
    images: int
    captions: int
    protocol: str
    text_to_image: RecallBlock | None
    image_to_text: RecallBlock | None
    text_to_image_index: RecallBlock | None
    image_to_text_index: RecallBlock | None
    index_recall: IndexRecall = msgspec.field(name="index_recall@10")
    queries: QueryCounts
    index_queries: IndexQueries
    sampled: bool
    seed: int
    trained: bool
    ceiling: Ceiling | None = None
    reliability: Reliabilities | None = None
