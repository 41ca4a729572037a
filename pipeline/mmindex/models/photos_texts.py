"""The text tower of the embedded model for photographs, in NumPy.

It computes the same vectors as :class:`mmindex.models.photos.TextTower`, within float32 rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError, ModelMismatchError, first_lines
from mmindex.models.encoder import Float32
from mmindex.models.numpy_layers import Block, Linear, Norm, gelu

Int64 = NDArray[np.int64]

_EPSILON: Final = 1e-12
# Suffix of the tensor with the divisors of the rows of an 8-bit matrix.
_SCALE: Final = ":scale"


@dataclass(frozen=True, slots=True)
class _Weights:
    """The weights of the text side by name, as stored."""

    stored: Mapping[str, NDArray[Any]]

    def require(self, name: str, *shape: int) -> None:
        """Raise ValueError if a tensor does not have this shape."""
        if self.stored[name].shape != shape:
            raise ValueError(f"{name} has the shape {self.stored[name].shape}, not {shape}")

    def vector(self, name: str) -> Float32:
        """Return a tensor that is not in 8 bits as float32."""
        return self.stored[name].astype(np.float32)

    def linear(self, name: str) -> Linear:
        """Return a linear layer."""
        weight = self.vector(f"{name}.weight")
        weight *= self.vector(f"{name}.weight{_SCALE}")[:, None]
        return Linear(weight, self.vector(f"{name}.bias"))

    def norm(self, name: str) -> Norm:
        """Return a layer normalisation."""
        return Norm(self.vector(f"{name}.weight"), self.vector(f"{name}.bias"), _EPSILON)

    def block(self, name: str, heads: int) -> Block:
        """Return a layer of the tower."""
        return Block(
            heads,
            self.linear(f"{name}.attend"),
            self.linear(f"{name}.attended"),
            self.linear(f"{name}.widen"),
            gelu,
            self.linear(f"{name}.narrow"),
            (self.norm(f"{name}.attended_norm"), self.norm(f"{name}.norm")),
        )


@dataclass(frozen=True, slots=True)
class PhotosTexts:
    """The text tower; see :class:`mmindex.models.text_side.Tower`."""

    packed: NDArray[np.uint8]
    scale: Float32
    places: Float32
    norm: Norm
    blocks: tuple[Block, ...]
    head: Linear

    def lengths(self, tokens: Int64) -> Int64:
        """Return the number of positions that each text in int64 (b, c) needs: int64 (b,)."""
        lengths: Int64 = np.count_nonzero(tokens, axis=1)
        return lengths

    def __call__(self, tokens: Int64) -> Float32:
        """Encode int64 (b, length) with 0 as padding as float32 (b, dim), not of unit length."""
        real = tokens != 0
        inner = self.norm(self._words(tokens) + self.places[: tokens.shape[1]])
        mask = np.where(real, np.float32(0), np.float32(-np.inf))[:, None, None, :]
        for block in self.blocks:
            attended, fed = block.norms
            inner = attended(inner + block.attention(inner, mask))
            inner = fed(inner + block.feed_forward(inner))
        inner *= real[..., None]
        return self.head(inner.sum(axis=1) / real.sum(axis=1, keepdims=True, dtype=np.float32))

    def _words(self, tokens: Int64) -> Float32:
        """Unpack the rows of tokens; see :class:`mmindex.models.packing.PackedEmbedding`."""
        parts = self.packed[tokens].reshape(*tokens.shape, -1, 3).astype(np.int32)
        whole = parts[..., 0] | (parts[..., 1] << 8) | (parts[..., 2] << 16)
        levels = (whole[..., None] >> np.array([0, 6, 12, 18], dtype=np.int32)) & 63
        rows = (levels.reshape(*tokens.shape, -1) - 32).astype(np.float32)
        rows *= self.scale[tokens]
        return rows


def read_photos_texts(path: Path, config: Mapping[str, Any]) -> PhotosTexts:
    """Read the text tower from a safetensors file.

    Args:
        path: the weights.
        config: ``model_cfg`` in the folder of the model.

    Raises:
        DataError: the weights are damaged.
        ModelMismatchError: the weights do not match the configuration.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = [name for name in file.keys() if name.startswith(("text.", "text_head."))]  # noqa: SIM118 # no mapping
            weights = _Weights({name: file.get_tensor(name) for name in names})
    except SafetensorError as error:
        raise DataError(f"weights {path}: damaged: {first_lines(error, 2)}") from error
    try:
        return _tower(weights, config["text_cfg"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelMismatchError(
            f"weights {path} do not fit their configuration: {error!r}",
            "use the configuration file that belongs to the weights",
        ) from error


def _tower(weights: _Weights, config: Mapping[str, Any]) -> PhotosTexts:
    heads, width = config["heads"], config["width"]
    weights.require("text.places", config["context_length"], width)
    weights.require("text.words.packed", config["vocab_size"], width // 4 * 3)
    weights.require("text.layers.0.widen.weight", config["inner"], width)
    if f"text.layers.{config['layers']}.norm.weight" in weights.stored:
        raise ValueError(f"more than {config['layers']} layers")
    names = (f"text.layers.{number}" for number in range(config["layers"]))
    return PhotosTexts(
        weights.stored["text.words.packed"],
        weights.vector("text.words.scale"),
        weights.vector("text.places"),
        weights.norm("text.norm"),
        tuple(weights.block(name, heads) for name in names),
        weights.linear("text_head"),
    )
