"""Expected figures: the published recall of a model on a corpus."""

from __future__ import annotations

from typing import Annotated

import msgspec

Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Rank = Annotated[float, msgspec.Meta(ge=1)]


class _Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base class: an unknown figure is an error."""


class ExpectedRecall(_Golden, frozen=True, omit_defaults=True):
    """The figures of one direction; missing figures are not compared."""

    r1: Percent | None = msgspec.field(name="r@1", default=None)
    r5: Percent | None = msgspec.field(name="r@5", default=None)
    r10: Percent | None = msgspec.field(name="r@10", default=None)
    medr: Rank | None = None


class ExpectedIndexRecall(_Golden, frozen=True, omit_defaults=True):
    """Index recall@10 in percent."""

    image: Percent | None = None
    text: Percent | None = None


class Expected(_Golden, frozen=True):
    """An ``[[expected]]`` table.

    Attributes:
        model, pretrained: as in the manifest of the store; None matches any.
        corpus: the value of the column ``source``, such as ``coco-karpathy``; None matches any.
        split: the value of the column ``split`` in every row; None matches any.
        tolerance: percentage points (ranks, for ``medr``) of allowed difference in both directions.
        cite: the source of the figures.
        images, captions: the exact numbers.
        text_to_image, image_to_text: figures of exact search.
        text_to_image_index, image_to_text_index: through the index.
        index_recall: of the indexes.
    """

    model: str | None = None
    pretrained: str | None = None
    corpus: str | None = None
    split: str | None = None
    tolerance: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.5
    cite: str = ""
    images: int | None = None
    captions: int | None = None
    text_to_image: ExpectedRecall | None = None
    image_to_text: ExpectedRecall | None = None
    text_to_image_index: ExpectedRecall | None = None
    image_to_text_index: ExpectedRecall | None = None
    index_recall: ExpectedIndexRecall | None = msgspec.field(name="index_recall@10", default=None)

    @property
    def title(self) -> str:
        """The model and the corpus of the figures in one line."""
        model = " ".join(part for part in (self.model, self.pretrained) if part)
        corpus = " ".join(part for part in (self.corpus, self.split) if part)
        return f"{model or 'any model'} on {corpus or 'any corpus'}"
