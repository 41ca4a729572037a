"""Images with their captions, as vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError

Float16 = NDArray[np.float16]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

# Folds of ten images each are the least that recall can be compared on.
LEAST_IMAGES = 50


@dataclass(frozen=True, slots=True)
class Pairs:
    """Captioned images of one model.

    Attributes:
        images: float16 (n, dim), unit length, each image once.
        texts: float16 (m, dim), unit length, captions; those of one image stand together.
        counts: int64 (n,), how many captions each image has, at least 1; their sum is m.
        starts: int64 (n,), where each image's captions begin.
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
        """Numbers in a vector."""
        return int(self.images.shape[1])

    def captions_of(self, pictures: Int64) -> Int64:
        """The rows in ``texts`` of some images' captions, image by image: int64."""
        sizes = self.counts[pictures]
        inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows: Int64 = np.repeat(self.starts[pictures], sizes) + inside
        return rows

    def only(self, pictures: Int64) -> Pairs:
        """Some images, int64 (k,), with all their captions, in the order given."""
        rows = self.captions_of(pictures)
        return Pairs(self.images[pictures], self.texts[rows], self.counts[pictures])


def make_pairs(images: NDArray[Any], texts: NDArray[Any], owner: Int64) -> Pairs:
    """Put captions beside their images; images without one are left out.

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
    pictures, counts = np.unique(owner, return_counts=True)
    if len(pictures) < LEAST_IMAGES:
        raise DataError(
            f"too few images with captions: {len(pictures)}, at least {LEAST_IMAGES} are needed",
            "add captions; a few hundred captioned images usually give a clear gain",
        )
    return Pairs(
        images[pictures].astype(np.float16),
        texts[order].astype(np.float16),
        counts.astype(np.int64),
    )
