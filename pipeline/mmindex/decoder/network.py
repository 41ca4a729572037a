"""The network: a transformer that reads feature maps of an image by cross-attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from mmindex.decoder.words import MOST_WORDS

CONTEXT = 2 * MOST_WORDS + 3  # the prompt, the answer, and three special tokens
_SLOWEST: Final = math.pi / 2  # of the waves that tell places apart: radians across the map
_OCTAVES: Final = 5.0  # from the slowest to the fastest wave
_WAVE_HEIGHT: Final = 0.7  # about as large as what is read of the image at first


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a decoder.

    Attributes:
        words: the number of tokens of the vocabulary.
        maps: channels and places (height times width) of each feature map.
        width: the number of dimensions of a token.
        layers, heads: of the transformer.
    """

    words: int
    maps: tuple[tuple[int, int], ...]
    width: int = 128
    layers: int = 3
    heads: int = 4


class _Layer(nn.Module):
    """Self-attention, cross-attention and two linear layers, each after a normalisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.self_norm, self.cross_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.self_in, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.cross_query = nn.Linear(width, width)
        self.cross_in, self.cross_out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Tensor, memory: Tensor, mask: Tensor | None, past: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the new states, and the keys and values of all tokens so far."""
        query, *now = self.self_in(self.self_norm(x)).chunk(3, dim=-1)
        seen = torch.stack(now) if past is None else torch.cat([past, torch.stack(now)], dim=2)
        x = x + self.self_out(self._attend(query, seen[0], seen[1], mask))
        key, value = memory.chunk(2, dim=-1)
        query = self.cross_query(self.cross_norm(x))
        x = x + self.cross_out(self._attend(query, key, value, None))
        return x + self.mlp(self.mlp_norm(x)), seen

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        def parted(x: Tensor) -> Tensor:
            return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(parted(query), parted(key), parted(value), mask)
        return mixed.transpose(1, 2).flatten(-2)


def _grid(places: int, width: int) -> Tensor:
    """Return initial values for the places of a map, row by row: waves of the two coordinates.

    They tell the network from the start which places are beside each other.
    """
    rows = max(n for n in range(1, math.isqrt(places) + 1) if places % n == 0)
    columns, waves = places // rows, math.ceil(width / 4)
    speeds = _SLOWEST * 2.0 ** (torch.arange(waves) * (_OCTAVES / waves))

    def waved(count: int) -> Tensor:
        turns = ((torch.arange(count) + 0.5) / count)[:, None] * speeds
        return torch.cat([turns.sin(), turns.cos()], dim=1)

    down, across = waved(rows).repeat_interleave(columns, dim=0), waved(columns).repeat(rows, 1)
    return _WAVE_HEIGHT * torch.cat([down, across], dim=1)[:, :width]


class DecoderNetwork(nn.Module):
    """Predicts the next word from an image and the words before."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.words = nn.Embedding(shape.words, width)
        self.positions = nn.Parameter(torch.zeros(CONTEXT, width))
        self.map_norms = nn.ModuleList(nn.LayerNorm(channels) for channels, _ in shape.maps)
        self.map_linears = nn.ModuleList(nn.Linear(channels, width) for channels, _ in shape.maps)
        self.places = nn.Parameter(torch.cat([_grid(count, width) for _, count in shape.maps]))
        self.blank = nn.Parameter(torch.zeros_like(self.places))  # read if there is no image
        self.memory_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(_Layer(width, shape.heads) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(width)
        for parameter in (self.words.weight, self.positions, self.blank):
            nn.init.normal_(parameter, std=0.05)

    def memory(self, maps: list[Tensor], unseen: Tensor | None = None) -> list[Tensor]:
        """Return what each layer reads of the images: float32 (b, places, 2 * width).

        Args:
            maps: feature maps, float (b, places, channels) each.
            unseen: bool (b,), images to replace with the fixed blank; None: none.
        """
        parts = [
            linear(norm(part.float()))
            for norm, linear, part in zip(self.map_norms, self.map_linears, maps, strict=True)
        ]
        seen = torch.cat(parts, dim=1) + self.places
        if unseen is not None:
            seen = torch.where(unseen[:, None, None], self.blank, seen)
        seen = self.memory_norm(seen)
        layers: Any = self.layers
        return [layer.cross_in(seen) for layer in layers]

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        memory: list[Tensor],
        past: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the state at each token, float32 (b, n, width), and what later tokens read.

        :meth:`scores` turns states into predictions.

        Args:
            tokens, positions: int64 (b, n).
            mask: bool (b, 1, n, n), true if a token (row) reads another (column); None: all.
            memory: see :meth:`memory`.
            past: the second result for the tokens before these; None: there are none.
        """
        x = self.words(tokens) + self.positions[positions]
        kept = []
        for number, layer in enumerate(self.layers):
            x, seen = layer(x, memory[number], mask, None if past is None else past[number])
            kept.append(seen)
        return self.norm(x), kept

    def scores(self, states: Tensor) -> Tensor:
        """Return the logits of the next word: (..., words)."""
        return states @ self.words.weight.T

    def parameter_count(self) -> int:
        """Return the number of parameters."""
        parameters: Any = self.parameters()
        return sum(parameter.numel() for parameter in parameters)
