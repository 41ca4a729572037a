"""The text side of the embedded model for photographs, in NumPy.

It computes the same vectors as :class:`mmindex.models.photos.TextTower`, within float32 rounding.
A query from the shell encodes one short text, but importing torch takes several times as long as
everything else that a query does; the weights of the image side are not read either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError, ModelMismatchError, first_lines
from mmindex.models.adapted import Affine
from mmindex.models.encoder import Float32
from mmindex.models.files import ModelFiles
from mmindex.models.tokenizer import Tokenizer, make_tokenizer, shorten
from mmindex.models.trim import spans
from mmindex.store.manifest import EncoderInfo

Int64 = NDArray[np.int64]

_EPSILON: Final = np.float32(1e-12)
# Positions per batch: the intermediate values of a layer stay in the processor's cache.
_TOKENS: Final = 1_024
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

    def matrix(self, name: str) -> Float32:
        """Return the transposed weight of a linear layer: float32 (inputs, outputs)."""
        weight = self.vector(f"{name}.weight")
        weight *= self.vector(f"{name}.weight{_SCALE}")[:, None]
        transposed: Float32 = weight.T
        return transposed

    def vector(self, name: str) -> Float32:
        """Return any other tensor as float32."""
        return self.stored[name].astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Linear:
    weight: Float32
    bias: Float32

    @classmethod
    def read(cls, weights: _Weights, name: str) -> _Linear:
        return cls(weights.matrix(name), weights.vector(f"{name}.bias"))

    def __call__(self, inner: Float32) -> Float32:
        # One product of two matrices is faster than one for each text.
        out: Float32 = inner.reshape(-1, inner.shape[-1]) @ self.weight
        out += self.bias
        return out.reshape(*inner.shape[:-1], -1)


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Float32
    bias: Float32

    @classmethod
    def read(cls, weights: _Weights, name: str) -> _Norm:
        return cls(weights.vector(f"{name}.weight"), weights.vector(f"{name}.bias"))

    def __call__(self, inner: Float32) -> Float32:
        centred: Float32 = inner - inner.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        centred /= np.sqrt(variance + _EPSILON)
        centred *= self.weight
        centred += self.bias
        return centred


@dataclass(frozen=True, slots=True)
class _Layer:
    heads: int
    attend: _Linear
    attended: _Linear
    attended_norm: _Norm
    widen: _Linear
    narrow: _Linear
    norm: _Norm

    @classmethod
    def read(cls, weights: _Weights, name: str, heads: int) -> _Layer:
        return cls(
            heads,
            _Linear.read(weights, f"{name}.attend"),
            _Linear.read(weights, f"{name}.attended"),
            _Norm.read(weights, f"{name}.attended_norm"),
            _Linear.read(weights, f"{name}.widen"),
            _Linear.read(weights, f"{name}.narrow"),
            _Norm.read(weights, f"{name}.norm"),
        )

    def __call__(self, tokens: Float32, mask: Float32) -> Float32:
        batch, length, width = tokens.shape
        parts = self.attend(tokens).reshape(batch, length, 3, self.heads, -1)
        query, key, value = parts.transpose(2, 0, 3, 1, 4)
        scores = query @ key.swapaxes(-1, -2)
        scores *= np.float32((width // self.heads) ** -0.5)
        scores += mask
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        seen = (scores @ value).transpose(0, 2, 1, 3).reshape(batch, length, width)
        tokens = self.attended_norm(tokens + self.attended(seen))
        return self.norm(tokens + self.narrow(_gelu(self.widen(tokens))))


@dataclass(frozen=True, slots=True)
class _TextTower:
    packed: NDArray[np.uint8]
    scale: Float32
    places: Float32
    norm: _Norm
    layers: tuple[_Layer, ...]
    head: _Linear

    @classmethod
    def read(cls, weights: _Weights, config: Mapping[str, Any]) -> _TextTower:
        heads, width = config["heads"], config["width"]
        weights.require("text.places", config["context_length"], width)
        weights.require("text.words.packed", config["vocab_size"], width // 4 * 3)
        weights.require("text.layers.0.widen.weight", config["inner"], width)
        if f"text.layers.{config['layers']}.norm.weight" in weights.stored:
            raise ValueError(f"more than {config['layers']} layers")
        names = (f"text.layers.{number}" for number in range(config["layers"]))
        layers = (_Layer.read(weights, name, heads) for name in names)
        return cls(
            weights.stored["text.words.packed"],
            weights.vector("text.words.scale"),
            weights.vector("text.places"),
            _Norm.read(weights, "text.norm"),
            tuple(layers),
            _Linear.read(weights, "text_head"),
        )

    def __call__(self, tokens: Int64) -> Float32:
        """Encode int64 (b, length) with 0 as padding as float32 (b, dim), not of unit length."""
        real = tokens != 0
        inner = self.norm(self._words(tokens) + self.places[: tokens.shape[1]])
        mask = np.where(real, np.float32(0), np.float32(-np.inf))[:, None, None, :]
        for layer in self.layers:
            inner = layer(inner, mask)
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


def _gelu(inner: Float32) -> Float32:
    """Multiply by the normal distribution function, with an error below 1.5e-7.

    Formula 7.1.26 of M. Abramowitz and I. Stegun, Handbook of Mathematical Functions, 1964.
    """
    size = np.abs(inner)
    size *= np.float32(2**-0.5)
    step = 1 / (1 + np.float32(0.3275911) * size)
    tail = np.full_like(step, 1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail *= step
        tail += np.float32(factor)
    tail *= step
    tail *= np.exp(-np.square(size))
    # erf(-x) = -erf(x)
    return inner * np.where(inner < 0, tail, 2 - tail) * np.float32(0.5)


@dataclass(slots=True)
class PhotosTexts:
    """Encodes texts with the model for photographs, or with a model adapted from it.

    Attributes:
        info: the description of the model.
        cut_texts: the number of texts so far that were truncated to the context of the model.
    """

    info: EncoderInfo
    tokenize: Tokenizer
    tower: _TextTower
    adapted: Affine | None = None
    cut_texts: int = 0

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Encode b texts into float32 (b, dim), unit length, in the order given.

        A row for which the model returns NaN, infinity or zeros does not have unit length.
        """
        out = np.empty((len(texts), self.info.dim), dtype=np.float32)
        if not texts:
            return out
        tokens = self.tokenize(shorten(texts))
        self.cut_texts += self.tokenize.count_cut(texts, tokens)
        lengths = np.count_nonzero(tokens, axis=1)
        order = lengths.argsort(kind="stable")
        for span in spans(lengths[order].tolist(), _TOKENS):
            rows = order[span]
            vectors = self.tower(tokens[rows, : lengths[rows[-1]]])
            with np.errstate(invalid="ignore", divide="ignore"):
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            out[rows] = vectors if self.adapted is None else self.adapted(vectors)
        return out


def read_photos_texts(files: ModelFiles, info: EncoderInfo) -> PhotosTexts | None:
    """Read the text side of a model; None if its network is not the one for photographs.

    Raises:
        DataError: the weights are damaged.
        ModelMismatchError: the weights do not match the configuration.
        MmindexError: another file is missing or damaged.
    """
    if not files.built_in or files.weights is None or files.weights.suffix != ".safetensors":
        return None
    tower = _read_tower(files.weights, files.config["text_cfg"])
    adapted = None if files.adapted is None else files.adapted.maps().text
    return PhotosTexts(info, make_tokenizer(files.tokenizer), tower, adapted)


def _read_tower(path: Path, config: Mapping[str, Any]) -> _TextTower:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = [name for name in file.keys() if name.startswith(("text.", "text_head."))]  # noqa: SIM118 # no mapping
            weights = _Weights({name: file.get_tensor(name) for name in names})
    except SafetensorError as error:
        raise DataError(f"weights {path}: damaged: {first_lines(error, 2)}") from error
    try:
        return _TextTower.read(weights, config)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelMismatchError(
            f"weights {path} do not fit their configuration: {error!r}",
            "use the configuration file that belongs to the weights",
        ) from error
