"""How long a bar is: cosine similarities on a scale that no answer changes."""

from __future__ import annotations

from typing import Final

from mmindex.core.modality import Modality
from mmindex.core.model_names import EMBEDDED, PHOTOS
from mmindex.store.manifest import EncoderInfo

# What a text and an image that belong together reach at most with each model: the 99th percentile
# over captions with their own image (4,000 of 800 scenes; 795 of 159 photographs of COCO).
_FULL: Final = {EMBEDDED: 0.8, PHOTOS: 0.65}
# CLIP models trained with a contrastive loss: 0.2 is a loose match, 0.35 a very good one.
_FULL_OTHERS: Final = 0.4


def full_bar(encoder: EncoderInfo, asked: Modality, found: Modality) -> float:
    """The cosine similarity of a full bar.

    Two images, or two texts, can be the same: 1. A text and an image never come that close; how
    close they come depends on the model.
    """
    return 1.0 if asked is found else _FULL.get(encoder.model, _FULL_OTHERS)


def share(score: float, full: float) -> float:
    """The length of a score's bar, in percent."""
    return round(100 * min(1.0, max(0.0, score / full)), 1)
