"""The text tower of open_clip's standard models, in NumPy.

It computes the same vectors as ``open_clip.transformer.TextTransformer`` with its default options,
within float32 rounding. Only the tensors of the text tower are read. Of the token embedding, only
the rows of the tokens in the texts are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError, first_lines, os_errors
from mmindex.models.encoder import Float32
from mmindex.models.numpy_layers import Activation, Block, Linear, Norm, gelu, quick_gelu

Int64 = NDArray[np.int64]

# Keys of model_cfg and text_cfg that this module uses, or that do not change the vectors of texts.
# Models with other keys have a different network.
_MODEL_KEYS: Final = frozenset(
    {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"}
    | {"init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"}
)
# The defaults of open_clip.
_SIZES: Final = {"context_length": 77, "vocab_size": 49_408, "width": 512, "heads": 8, "layers": 12}
_TEXT_KEYS: Final = frozenset({*_SIZES, "pool_type", "eos_id", "tokenizer_kwargs"})
_MLP_RATIO: Final = 4
_WORDS: Final = "token_embedding.weight"
_PLACES: Final = "positional_embedding"
_PROJECTION: Final = "text_projection"
_NORM: Final = "ln_final."
_LAYERS: Final = "transformer."
_BLOCK: Final = "transformer.resblocks.{}"
_EPSILON: Final = 1e-5


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """The sizes and options of a text tower, from its configuration.

    Attributes:
        prefix: the prefix of the names of its tensors.
        eos_id: the token at which a text ends; None: the largest token.
    """

    dim: int
    context_length: int
    vocab_size: int
    width: int
    heads: int
    layers: int
    activate: Activation
    prefix: str
    eos_id: int | None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ClipPlan | None:
        """Return the plan for a ``model_cfg``; None if it describes a different network."""
        text = config.get("text_cfg")
        if not isinstance(text, dict) or not ({*config} <= _MODEL_KEYS and {*text} <= _TEXT_KEYS):
            return None
        sizes = {name: text.get(name, default) for name, default in _SIZES.items()}
        sizes["dim"] = config.get("embed_dim")
        pooled, eos_id = text.get("pool_type", "argmax"), text.get("eos_id", 2)
        numbers = [*sizes.values(), eos_id]
        if pooled not in ("argmax", "eos") or not all(type(one) is int for one in numbers):
            return None
        if sizes["heads"] < 1 or sizes["width"] % sizes["heads"]:
            return None
        return cls(
            **sizes,
            activate=quick_gelu if config.get("quick_gelu") else gelu,
            prefix="text." if config.get("custom_text") else "",
            eos_id=eos_id if pooled == "eos" else None,
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors of the tower, by name without the prefix."""
        width, wide = self.width, _MLP_RATIO * self.width
        shapes: dict[str, tuple[int, ...]] = {
            _WORDS: (self.vocab_size, width),
            _PLACES: (self.context_length, width),
            _PROJECTION: (width, self.dim),
        }
        layers: list[tuple[str, tuple[int, ...]]] = [(_NORM, (width,))]
        for number in range(self.layers):
            block = _BLOCK.format(number)
            layers += [
                (f"{block}.ln_1.", (width,)),
                (f"{block}.attn.in_proj_", (3 * width, width)),
                (f"{block}.attn.out_proj.", (width, width)),
                (f"{block}.ln_2.", (width,)),
                (f"{block}.mlp.c_fc.", (wide, width)),
                (f"{block}.mlp.c_proj.", (width, wide)),
            ]
        for name, shape in layers:
            shapes |= {f"{name}weight": shape, f"{name}bias": shape[:1]}
        return shapes


@dataclass(frozen=True, slots=True)
class _Weights:
    """An open safetensors file."""

    file: Any
    prefix: str

    def fit(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Return whether the file has these tensors in float32 or float16, and no other layers."""
        every: list[str] = self.file.keys()
        names = {name[len(self.prefix) :] for name in every if name.startswith(self.prefix)}
        layers = {name for name in names if name.startswith(_LAYERS)}
        if not (layers <= shapes.keys() <= names):
            return False
        slices = {name: self.rows(name) for name in shapes}
        return all(
            tuple(one.get_shape()) == shapes[name] and one.get_dtype() in ("F32", "F16")
            for name, one in slices.items()
        )

    def rows(self, name: str) -> Any:
        """Return a tensor whose rows are read only when they are indexed."""
        return self.file.get_slice(f"{self.prefix}{name}")

    def vector(self, name: str) -> Float32:
        """Return a tensor as float32."""
        tensor: NDArray[Any] = self.file.get_tensor(f"{self.prefix}{name}")
        return tensor.astype(np.float32, copy=False)

    def linear(self, name: str) -> Linear:
        """Return a linear layer; its name ends with a separator."""
        return Linear(self.vector(f"{name}weight"), self.vector(f"{name}bias"))

    def norm(self, name: str) -> Norm:
        """Return a layer normalisation; its name ends with a separator."""
        return Norm(self.vector(f"{name}weight"), self.vector(f"{name}bias"), _EPSILON)

    def block(self, name: str, heads: int, activate: Activation) -> Block:
        """Return a layer of the tower."""
        return Block(
            heads,
            self.linear(f"{name}.attn.in_proj_"),
            self.linear(f"{name}.attn.out_proj."),
            self.linear(f"{name}.mlp.c_fc."),
            activate,
            self.linear(f"{name}.mlp.c_proj."),
            (self.norm(f"{name}.ln_1."), self.norm(f"{name}.ln_2.")),
        )


@dataclass(frozen=True, slots=True)
class ClipTexts:
    """The text tower; see :class:`mmindex.models.text_side.Tower`.

    Attributes:
        words: the token embedding in the file, (vocabulary, width).
        places: the positional embedding, float32 (context, width).
        projection: float32 (width, dim).
        eos_id: the token at which a text ends; None: the largest token.
    """

    words: Any
    places: Float32
    blocks: tuple[Block, ...]
    norm: Norm
    projection: Float32
    eos_id: int | None

    def lengths(self, tokens: Int64) -> Int64:
        """Return the number of positions that each text in int64 (b, c) needs: int64 (b,).

        The tower is causal: positions after the end of a text do not affect its vector.
        """
        marks = tokens if self.eos_id is None else tokens == self.eos_id
        lengths: Int64 = marks.argmax(axis=1) + 1
        return lengths

    def __call__(self, tokens: Int64) -> Float32:
        """Encode int64 (b, length) as float32 (b, dim), not of unit length."""
        length = tokens.shape[1]
        inner = self._embedded(tokens) + self.places[:length]
        mask = np.triu(np.full((length, length), -np.inf, dtype=np.float32), 1)
        for block in self.blocks:
            before_attention, before_feed_forward = block.norms
            inner += block.attention(before_attention(inner), mask)
            inner += block.feed_forward(before_feed_forward(inner))
        ends = inner[np.arange(len(tokens)), self.lengths(tokens) - 1]
        vectors: Float32 = self.norm(ends) @ self.projection
        return vectors

    def _embedded(self, tokens: Int64) -> Float32:
        """Read the embeddings of tokens; a short text needs only about a dozen of 49,408 rows."""
        numbers, places = np.unique(tokens, return_inverse=True)
        rows = np.concatenate([self.words[number : number + 1] for number in numbers.tolist()])
        embedded: Float32 = rows.astype(np.float32, copy=False)[places.reshape(tokens.shape)]
        return embedded


def read_clip_texts(path: Path, plan: ClipPlan) -> ClipTexts | None:
    """Read the text tower from a safetensors file.

    Returns:
        The tower; None if the file does not have exactly the tensors of the plan. open_clip may be
        able to convert these.

    Raises:
        DataError: the weights are damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with os_errors(path):
            weights = _Weights(safe_open(path, framework="np"), plan.prefix)
    except SafetensorError as error:
        raise DataError(f"weights {path}: damaged: {first_lines(error, 2)}") from error
    if not weights.fit(plan.shapes()):
        return None
    names = (_BLOCK.format(number) for number in range(plan.layers))
    return ClipTexts(
        weights.rows(_WORDS),
        weights.vector(_PLACES),
        tuple(weights.block(name, plan.heads, plan.activate) for name in names),
        weights.norm(_NORM),
        weights.vector(_PROJECTION),
        plan.eos_id,
    )
