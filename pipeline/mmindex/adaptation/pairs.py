"""Vectors of images and their captions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError
from mmindex.evaluate.corpus import slices

Float16 = NDArray[np.float16]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

# Folds of ten images each are the minimum for comparing recall.
LEAST_IMAGES = 50


@dataclass(frozen=True, slots=True)
class Pairs:
    """Captioned images of one model.

    Attributes:
        images: float16 (n, dim), unit length, each image once.
        texts: float16 (m, dim), unit length, captions; those of one image are consecutive.
        counts: int64 (n,), number of captions per image, at least 1; their sum is m.
        starts: int64 (n,), position of each image's first caption.
    """

    images: Float16
    texts: Float16
    counts: Int64
    starts: Int64 = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", np.cumsum(self.counts) - self.counts)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        return int(self.images.shape[1])

    def captions_of(self, images: Int64) -> Int64:
        """Return the rows in ``texts`` of some images' captions, image by image: int64."""
        return slices(self.starts[images], self.counts[images])

    def only(self, images: Int64) -> Pairs:
        """Return some images, int64 (k,), with all their captions, in the given order."""
        rows = self.captions_of(images)
        return Pairs(self.images[images], self.texts[rows], self.counts[images])


def make_pairs(images: NDArray[Any], texts: NDArray[Any], owner: Int64) -> Pairs:
    """Combine captions with their images; images without a caption are left out.

    Args:
        images: (n, dim), unit length.
        texts: (m, dim), unit length.
        owner: int64 (m,), each caption's image.

    Raises:
        DataError: a vector is not finite or has no unit length, or there are too few images.
    """
    for name, vectors in (("image", images), ("caption", texts)):
        lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
        bad = int(np.count_nonzero(~(np.abs(lengths - 1.0) < 0.02)))  # NaN fails the comparison
        if bad:
            raise DataError(
                f"{bad} of {len(vectors)} {name} vectors are not finite or not of unit length",
                "run `mmindex check --full`, then `mmindex build`",
            )
    order = np.argsort(owner, kind="stable")
    captioned, counts = np.unique(owner, return_counts=True)
    if len(captioned) < LEAST_IMAGES:
        raise DataError(
            f"too few images with captions: {len(captioned)}, at least {LEAST_IMAGES} are needed",
            "add captions; a few hundred captioned images usually give a clear gain",
        )
    return Pairs(
        images[captioned].astype(np.float16),
        texts[order].astype(np.float16),
        counts.astype(np.int64),
    )
