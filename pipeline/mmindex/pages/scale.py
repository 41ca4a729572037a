"""The length of score bars: cosine similarities on a fixed scale."""

from __future__ import annotations

from typing import Final

from mmindex.core.modality import Modality
from mmindex.core.model_names import EMBEDDED, PHOTOS
from mmindex.search.answer import Answer
from mmindex.store.manifest import EncoderInfo

# The highest scores of matching texts and images with each model: the 99th percentile over captions
# and their own images (4,000 captions of 800 scenes; 795 captions of 159 COCO photographs).
_FULL: Final = {EMBEDDED: 0.8, PHOTOS: 0.65}
# For CLIP models trained with a contrastive loss, 0.2 is a weak match and 0.35 a very good one.
_FULL_OTHERS: Final = 0.4


def full_of(encoder: EncoderInfo, asked: Modality, answer: Answer) -> float | None:
    """Return the score of a full bar; None if the scores have no fixed scale (BM25)."""
    return full_bar(encoder, asked, answer.to) if answer.cosine else None


def full_bar(encoder: EncoderInfo, asked: Modality, found: Modality) -> float:
    """Return the cosine similarity of a full bar.

    For two images or two texts it is 1. A text and an image never have this similarity; the highest
    values depend on the model.
    """
    return 1.0 if asked is found else _FULL.get(encoder.model, _FULL_OTHERS)


def share(score: float, full: float | None) -> float | None:
    """Return the length of a score bar, in percent; None for no bar."""
    return None if full is None else round(100 * min(1.0, max(0.0, score / full)), 1)
