"""Early fusion: one vector for an image and its captions, with a weight fitted to the corpus.

The vector of an item is ``v + w c``, normalised to unit length, where ``v`` is the vector of the
image and ``c`` is the mean vector of its captions. Captions can make results worse. Therefore ``w``
is fitted with captions that are left out of their own items, and it can be 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.evaluate.bootstrap import mean_over_images, recall_figures
from mmindex.evaluate.corpus import image_of_caption, sample, slices
from mmindex.store.snapshot import Snapshot

WEIGHTS: Final = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
_QUERIES: Final = 2_000
_FEWEST: Final = 100  # captions; with fewer, the result would be random
_ROWS: Final = 2_048
_CONFIDENCE: Final = 1.645  # standard errors: 95 % one-sided

Float16 = NDArray[np.float16]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ItemFit:
    """The weight of captions in the vectors of items.

    Attributes:
        weight: the weight of the captions; 0 if they do not help.
        queries: the number of captions that the weight was fitted with.
        images: recall in percent for these captions with the vectors of the images alone.
        items: recall with the weight; equal to ``images`` if the weight is 0.
    """

    weight: float
    queries: int
    images: dict[str, float] = field(default_factory=dict)
    items: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Said:
    """The captions of each image.

    Attributes:
        owners: int64 (captions,), the row of the image of each caption.
        ids: int64 (captions,), the id of the vector of each caption.
        order: int64 (captions,), the rows of captions, grouped by image.
        starts, counts: int64 (images,), the first position in ``order`` and the number of the
            captions of each image.
    """

    owners: Int64
    ids: Int64
    order: Int64
    starts: Int64
    counts: Int64

    @classmethod
    def of(cls, snapshot: Snapshot) -> Said:
        """Read the captions of a version."""
        owners = image_of_caption(snapshot)
        counts = np.bincount(owners, minlength=len(snapshot.row_ids(Modality.IMAGE)))
        return cls(
            owners=owners,
            ids=snapshot.row_ids(Modality.TEXT),
            order=np.argsort(owners, kind="stable").astype(np.int64),
            starts=(np.cumsum(counts) - counts).astype(np.int64),
            counts=counts.astype(np.int64),
        )

    def means(self, snapshot: Snapshot, rows: Int64) -> Float32:
        """Return the mean vectors of images' captions: float32 (n, dim); 0 without captions."""
        counts = self.counts[rows]
        wanted = self.order[slices(self.starts[rows], counts)]
        vectors = snapshot.vectors(Modality.TEXT).take(self.ids[wanted]).astype(np.float32)
        sums = np.zeros((len(rows), snapshot.encoder.dim), dtype=np.float32)
        np.add.at(sums, np.repeat(np.arange(len(rows)), counts), vectors)
        sums *= np.asarray(1 / np.maximum(counts, 1), dtype=np.float32)[:, None]
        return sums


def fused_vectors(images: Float16 | Float32, captions: Float32, weight: float) -> Float32:
    """Return the vectors of items: float32 (n, dim), unit length.

    Args:
        images: (n, dim), unit length.
        captions: float32 (n, dim), the mean vectors of the captions.
        weight: the weight of the captions, at least 0.
    """
    sums = images.astype(np.float32) + np.float32(weight) * captions
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    # The sum is 0 only if the vectors of the image and of its captions are opposite.
    return np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), images).astype(np.float32)


def fit_items(snapshot: Snapshot, seed: int = 0) -> ItemFit:
    """Fit the weight of the captions.

    It is above 0 only if the mean reciprocal rank of the correct images for left-out captions
    rises, with a confidence of 95 %.

    Raises:
        DataError: tables, ids and vectors do not match, or an object is damaged.
    """
    if Modality.TEXT not in snapshot.manifest.indexes:
        return ItemFit(0.0, 0)
    said = Said.of(snapshot)
    asked = sample(len(said.owners), _QUERIES, seed)
    if len(asked) < _FEWEST:
        return ItemFit(0.0, len(asked))
    ranks = _ranks(snapshot, said, asked)
    gains = 1 / ranks - 1 / ranks[0]
    found = [mean_over_images(row, said.owners[asked]) for row in gains]
    best = int(np.argmax([mean if mean > _CONFIDENCE * error else 0 for mean, error in found]))
    return ItemFit(WEIGHTS[best], len(asked), recall_figures(ranks[0]), recall_figures(ranks[best]))


def _ranks(snapshot: Snapshot, said: Said, asked: Int64) -> Int64:
    """Return the rank of the image of each caption for each weight: int64 (weights, captions).

    Args:
        asked: int64 (q,), rows of captions. Each is left out of the item of its own image.
    """
    queries = snapshot.vectors(Modality.TEXT).take(said.ids[asked]).astype(np.float32)
    owners = said.owners[asked]
    vectors, ids = snapshot.vectors(Modality.IMAGE), snapshot.row_ids(Modality.IMAGE)
    pictures = vectors.take(ids[owners])
    rest = _without(said.means(snapshot, owners), queries, said.counts[owners])
    own = np.stack([
        np.einsum("qd,qd->q", queries, fused_vectors(pictures, rest, weight)) for weight in WEIGHTS
    ])  # fmt: skip
    ranks = np.ones((len(WEIGHTS), len(asked)), dtype=np.int64)
    for start in range(0, len(ids), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(ids)))
        images, captions = vectors.take(ids[rows]), said.means(snapshot, rows)
        for number, weight in enumerate(WEIGHTS):
            scores = queries @ fused_vectors(images, captions, weight).T
            others = rows != owners[:, None]
            ranks[number] += np.count_nonzero((scores > own[number][:, None]) & others, axis=1)
        vectors.let_go()
    return ranks


def _without(means: Float32, captions: Float32, counts: Int64) -> Float32:
    """Return each mean without one of its captions; 0 if it is the only one."""
    sums = means * counts[:, None].astype(np.float32) - captions
    rest = np.maximum(counts - 1, 1)[:, None].astype(np.float32)
    return np.where(counts[:, None] > 1, sums / rest, 0).astype(np.float32)
