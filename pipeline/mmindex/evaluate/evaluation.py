"""The results of an evaluation, as in a manifest and in ``evaluate --format json``."""

from __future__ import annotations

import msgspec

from mmindex.store.manifest import Record


class RecallBlock(Record, frozen=True):
    """One direction: recall in percent, and the median rank.

    ``medr`` is null where the median query's answer is not among the first ten that an index gave:
    its rank is unknown then.
    """

    r1: float = msgspec.field(name="r@1")
    r5: float = msgspec.field(name="r@5")
    r10: float = msgspec.field(name="r@10")
    medr: float | None


class IndexRecall(Record, frozen=True):
    """Recall@10 of each index in percent; null where there is none, or nothing to measure with."""

    image: float | None
    text: float | None


class QueryCounts(Record, frozen=True):
    """How many queries each direction was measured with."""

    text_to_image: int
    image_to_text: int


class IndexQueries(Record, frozen=True):
    """What each index's recall was measured with: ``captions``, ``images``, or null.

    Without captions, images ask for their neighbours, themselves left out.
    """

    image: str | None
    text: str | None


class CeilingBlock(Record, frozen=True):
    """The best expected recall of one direction, in percent."""

    r1: float = msgspec.field(name="r@1")
    r5: float = msgspec.field(name="r@5")
    r10: float = msgspec.field(name="r@10")


class Ceiling(Record, frozen=True):
    """The best average recall that any model can reach, as some captions fit several images."""

    text_to_image: CeilingBlock
    image_to_text: CeilingBlock


class Evaluation(Record, frozen=True):
    """Recall of one version; percentages are 0 to 100.

    The first two blocks are exact search (the model's quality), the ``_index`` blocks the index as
    users get it. All four are null for a corpus without captions. ``sampled`` says that some
    direction was measured with a seeded sample of its queries, always over the whole gallery.
    ``trained`` is false for random weights, whose figures mean nothing. ``ceiling`` is known for
    drawn scenes only, where the truth is.
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
