"""Run a text tower only up to the longest text of a batch.

In a causal tower, a position does not depend on later ones, and the vector of a text is read at its
end-of-text position. Positions after the last end-of-text of a batch therefore have no effect, and
leaving them out results in the same vectors: with CLIP's 77 positions and captions of a dozen
words, with a quarter of the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


def spans(lengths: Sequence[int], tokens: int) -> Iterator[slice]:
    """Split texts, sorted by length, into batches of at most ``tokens`` positions with padding.

    Args:
        lengths: the lengths of the texts, ascending.
        tokens: the size limit of a batch; a longer text is a separate batch.
    """
    start = 0
    for stop, length in enumerate(lengths):
        if stop > start and (stop - start + 1) * length > tokens:
            yield slice(start, stop)
            start = stop
    if start < len(lengths):
        yield slice(start, len(lengths))


class TextReader(Protocol):
    """The text side of a model, for batches of texts with similar length."""

    @property
    def trims(self) -> bool:
        """Whether a batch may be trimmed to its longest text."""

    def lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """How many positions of int64 (b, c) each text needs: int64 (b,)."""

    def encode(self, tokens: torch.Tensor, length: int) -> torch.Tensor:
        """Vectors (b, dim) of int64 (b, c), read up to ``length``; their length means nothing."""


@dataclass(slots=True)
class TextTower:
    """The text side of an open_clip model.

    Attributes:
        model: the whole model.
        prefix: the prefix of the parameters of the tower; None if it must not be trimmed.
        pool_type: how the end-of-text position is found: ``argmax`` (largest token) or ``eos``.
        eos_id: the token for ``eos``.
    """

    model: Any
    prefix: str | None = field(init=False)
    pool_type: str = field(init=False)
    eos_id: int = field(init=False)

    def __post_init__(self) -> None:
        from open_clip import CLIP, CustomTextCLIP
        from open_clip.transformer import TextTransformer

        model, self.prefix, self.pool_type, self.eos_id = self.model, None, "", -1
        # Exact types, because a subclass may use its tokens differently.
        if type(model) is CLIP:
            if model.attn_mask is not None:
                self.prefix = ""
                self.pool_type, self.eos_id = model.text_pool_type, model.text_eos_id
        elif type(model) is CustomTextCLIP and type(model.text) is TextTransformer:
            tower = model.text
            if tower.attn_mask is not None and tower.cls_emb is None and not tower.use_pad_mask:
                self.prefix = "text."
                self.pool_type, self.eos_id = tower.pool_type, tower.eos_id
        if self.pool_type not in ("argmax", "eos"):
            self.prefix = None

    @property
    def trims(self) -> bool:
        """Whether a batch may be trimmed to its longest text."""
        return self.prefix is not None

    def lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """How many positions of int64 (b, c) each text needs: int64 (b,)."""
        import torch

        if self.prefix is None:
            return torch.full((len(tokens),), tokens.shape[1])
        # The same rule as in open_clip (transformer.text_global_pool).
        marks = tokens if self.pool_type == "argmax" else (tokens == self.eos_id).int()
        return marks.argmax(dim=-1) + 1

    def encode(self, tokens: torch.Tensor, length: int) -> torch.Tensor:
        """Vectors (b, dim) of int64 (b, c), read up to ``length``; their length means nothing."""
        import torch

        if self.prefix is None or length >= tokens.shape[1]:
            whole: torch.Tensor = self.model.encode_text(tokens)
            return whole
        mask, places = f"{self.prefix}attn_mask", f"{self.prefix}positional_embedding"
        narrowed = {
            mask: self.model.get_buffer(mask)[:length, :length],
            places: self.model.get_parameter(places)[:length],
        }
        # forward(text=...) returns image features (None), text features, scale.
        # Without tie_weights=False, torch would search all modules for tied parameters.
        out = torch.func.functional_call(
            self.model,
            narrowed,
            kwargs={"text": tokens[:, :length].contiguous()},
            tie_weights=False,
        )
        features: torch.Tensor = out["text_features"] if isinstance(out, dict) else out[1]
        return features
