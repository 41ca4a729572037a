"""Recall of maps on images that were not used for fitting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.adaptation.pairs import Float16, Float32, Int64, Pairs
from mmindex.evaluate.bootstrap import KS, LEVEL, REPLICATES, Interval, recall_intervals
from mmindex.evaluate.corpus import Items, VectorsInMemory, caption_queries, image_queries
from mmindex.evaluate.recall import exact_scan
from mmindex.models.adapted import Affine

_DEPTH: Final = 1  # nearest vectors that a scan keeps: only the ranks are needed


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks of the queries of one or several galleries.

    Attributes:
        text_to_image: int64 (m,), the rank of each caption's own image; 1 is first.
        image_to_text: int64 (n,), the rank of the first of each image's captions.
        owner: int64 (m,), each caption's image, 0 to n - 1.
    """

    text_to_image: Int64
    image_to_text: Int64
    owner: Int64

    @classmethod
    def joined(cls, parts: Sequence[Ranks]) -> Ranks:
        """Join galleries of different images."""
        sizes = np.cumsum([0, *(len(part.image_to_text) for part in parts)])
        owners = [part.owner + first for part, first in zip(parts, sizes[:-1], strict=True)]
        return cls(
            np.concatenate([part.text_to_image for part in parts]),
            np.concatenate([part.image_to_text for part in parts]),
            np.concatenate(owners),
        )

    @property
    def score(self) -> float:
        """Return the mean of recall@1, 5 and 10 in both directions, percent."""
        return float(self.scores().mean())

    def scores(self) -> NDArray[np.float64]:
        """Return the mean of recall@1, 5 and 10 for text to image and image to text, percent."""
        both = (self.text_to_image, self.image_to_text)
        return np.array([100 * np.mean([(one <= k).mean() for k in KS]) for one in both])


def rank(pairs: Pairs, maps: tuple[Affine, Affine] | None) -> Ranks:
    """Search all images of ``pairs`` with each caption, and all captions with each image.

    Args:
        pairs: the gallery.
        maps: the maps of images and of captions; None for unchanged vectors.
    """
    images, texts = pairs.images, pairs.texts
    if maps is not None:
        images, texts = _stored(maps[0](images)), _stored(maps[1](texts))
    owner = np.repeat(np.arange(len(pairs), dtype=np.int64), pairs.counts)
    gallery = Items(VectorsInMemory(images), np.arange(len(images), dtype=np.int64))
    captions = Items(VectorsInMemory(texts), np.arange(len(texts), dtype=np.int64))
    said = caption_queries(captions, owner, np.arange(len(owner), dtype=np.int64))
    seen = image_queries(gallery, owner, np.arange(len(pairs), dtype=np.int64))
    return Ranks(
        exact_scan(said, gallery, _DEPTH).ranks, exact_scan(seen, captions, _DEPTH).ranks, owner
    )


def _stored(vectors: Float32) -> Float16:
    """Convert vectors as a store does; NaN becomes 0, so that it is near to nothing."""
    return np.nan_to_num(vectors).astype(np.float16)


@dataclass(frozen=True, slots=True)
class Figures:
    """Recall@1, 5 and 10 in percent with 95 % intervals, in both directions."""

    text_to_image: tuple[Interval, ...]
    image_to_text: tuple[Interval, ...]

    @classmethod
    def of(cls, ranks: Ranks, seed: int) -> Figures:
        """Return the figures of some ranks."""
        images = np.arange(len(ranks.image_to_text))
        return cls(
            recall_intervals(ranks.text_to_image, ranks.owner, seed),
            recall_intervals(ranks.image_to_text, images, seed),
        )


@dataclass(frozen=True, slots=True)
class Change:
    """A difference in points, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better candidates are than the unchanged model, in mean recall@1, 5 and 10.

    Attributes:
        both: the mean of both directions.
        text_to_image, image_to_text: each direction.
    """

    both: Change
    text_to_image: Change
    image_to_text: Change

    @property
    def real(self) -> bool:
        """Whether the gain is significant and neither direction is significantly worse."""
        return self.both.low > 0 and min(self.text_to_image.high, self.image_to_text.high) >= 0


def gain(before: Ranks, after: Ranks, seed: int) -> Gain:
    """Compare two models on the same queries.

    Images are drawn with replacement together with their captions, as for the intervals of recall.
    Each draw compares both models, so queries that are hard for both add no noise.

    Args:
        before, after: ranks of the same queries.
        seed: seed of the draws.
    """
    images = len(before.image_to_text)
    captions = np.bincount(before.owner, minlength=images)
    said = np.bincount(
        before.owner, _hits(after.text_to_image) - _hits(before.text_to_image), images
    )
    seen = _hits(after.image_to_text) - _hits(before.image_to_text)
    rng = np.random.default_rng(seed)
    drawn = np.empty((REPLICATES, 2))
    for number in range(REPLICATES):
        times = np.bincount(rng.integers(images, size=images), minlength=images)
        drawn[number] = times @ said / (times @ captions), times @ seen / images
    value = np.array([said.sum() / captions.sum(), seen.mean()])
    return Gain(
        _change(value.mean(), drawn.mean(axis=1)),
        _change(value[0], drawn[:, 0]),
        _change(value[1], drawn[:, 1]),
    )


def _hits(ranks: Int64) -> NDArray[np.float64]:
    """Return each query's mean of recall@1, 5 and 10, percent: float64 (q,)."""
    hits: NDArray[np.float64] = 100 * np.mean([ranks <= k for k in KS], axis=0)
    return hits


def _change(value: float, drawn: NDArray[np.float64]) -> Change:
    tail = (100.0 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100.0 - tail])
    return Change(float(value), float(low), float(high))
