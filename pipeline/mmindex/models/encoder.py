"""The protocol of encoders, which convert pixels and texts to vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmindex.models.preprocess import Pixels, PreprocessSpec
from mmindex.store.manifest import EncoderInfo

Float32 = NDArray[np.float32]


class TextEncoder(Protocol):
    """The text side of a model.

    A row for which the model returns NaN, infinity or zeros does not have unit length (NaN or
    zeros): the caller must check this and handle the item.
    """

    @property
    def info(self) -> EncoderInfo:
        """The description of the model; its fingerprint is stored with all vectors."""

    @property
    def cut_texts(self) -> int:
        """The number of texts so far that were truncated to the context of the model."""

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Encode b texts into float32 (b, dim), unit length, in the order given."""


class Encoder(TextEncoder, Protocol):
    """A loaded model, with both sides."""

    @property
    def preprocess(self) -> PreprocessSpec:
        """The preprocessing for decode workers."""

    def encode_images(self, pixels: Pixels) -> Float32:
        """Encode uint8 (b, height, width, 3) into float32 (b, dim), unit length."""

    def start_images(self, pixels: Pixels) -> Callable[[], Float32]:
        """Start as :meth:`encode_images`; the returned function waits for the vectors.

        On a GPU, the next batch can be prepared and started before the vectors of this one are
        collected. ``pixels`` can be changed as soon as this method returns.
        """

    def close(self) -> None:
        """Release devices and processes; safe to call twice."""


def good_rows(vectors: Float32) -> NDArray[np.bool_]:
    """Return which rows of float32 (n, dim) are finite with unit length (within 1 %): bool (n,)."""
    # NaN and infinity fail the comparison, so they need no separate check.
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(squares - 1.0) < 0.02, dtype=np.bool_)
