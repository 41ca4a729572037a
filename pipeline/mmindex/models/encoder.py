"""What turns pixels and texts into vectors: the one protocol with several implementations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmindex.models.preprocess import Pixels, PreprocessSpec
from mmindex.store.manifest import EncoderInfo

Float32 = NDArray[np.float32]


class Encoder(Protocol):
    """A model, ready to encode.

    A row for which the model gives NaN, infinity or nothing at all comes back without unit length
    (NaN or zeros): the caller checks, and decides what becomes of that item.
    """

    @property
    def info(self) -> EncoderInfo:
        """Which model this is; its fingerprint goes beside every vector."""

    @property
    def preprocess(self) -> PreprocessSpec:
        """How decode workers prepare images."""

    @property
    def cut_texts(self) -> int:
        """How many texts so far were longer than the model's context: it saw their beginning."""

    def encode_images(self, pixels: Pixels) -> Float32:
        """Encode uint8 (b, height, width, 3) into float32 (b, dim), unit length."""

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Encode b texts into float32 (b, dim), unit length, in the order given."""

    def close(self) -> None:
        """Release devices and processes; safe to call twice."""


def good_rows(vectors: Float32) -> NDArray[np.bool_]:
    """Which rows of float32 (n, dim) are finite and have unit length (within 1 %): bool (n,)."""
    # NaN and infinity fail the comparison, so they need no check of their own.
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(squares - 1.0) < 0.02, dtype=np.bool_)
