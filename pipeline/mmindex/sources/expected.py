"""Golden figures: the recall that a model is known to reach on a corpus."""

from __future__ import annotations

from typing import Annotated

import msgspec

Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Rank = Annotated[float, msgspec.Meta(ge=1)]


class _Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base: a misspelt figure is an error."""


class ExpectedRecall(_Golden, frozen=True, omit_defaults=True):
    """One direction; what is left out is not compared."""

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
        model, pretrained: as the store's manifest names them; None fits any.
        corpus: what the ``source`` column says, such as ``coco-karpathy``; None fits any.
        split: what the ``split`` column says in every row; None fits any.
        tolerance: percentage points (ranks, for ``medr``) that a figure may be off, either way.
        cite: where the figures stand.
        images, captions: how many there must be, exactly.
        text_to_image, image_to_text: exact search, the model's quality.
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
        """Whose figures these are, in one line."""
        model = " ".join(part for part in (self.model, self.pretrained) if part)
        corpus = " ".join(part for part in (self.corpus, self.split) if part)
        return f"{model or 'any model'} on {corpus or 'any corpus'}"
