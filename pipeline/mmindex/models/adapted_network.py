"""The network of an adapted model, see :mod:`mmindex.models.adapted`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 # the usual name

from mmindex.models.adapted import Affine, Maps
from mmindex.models.trim import TextReader


class _Map(nn.Module):
    """A map as the network applies it: to vectors of unit length, always in float32."""

    weight: Tensor
    bias: Tensor

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        # Buffers, not a linear layer: `precision=int8` leaves them alone.
        self.register_buffer("weight", torch.from_numpy(affine.weight))
        self.register_buffer("bias", torch.from_numpy(affine.bias))

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (b, dim) of any length to vectors (b, dim); their length means nothing."""
        with torch.autocast(vectors.device.type, enabled=False):
            mapped: Tensor = F.linear(
                F.normalize(vectors.float(), dim=1, eps=0.0), self.weight, self.bias
            )
        return mapped


class AdaptedNetwork(nn.Module):
    """The parent's network with a map behind each tower.

    Attributes:
        parent: the parent's network.
        logit_scale: logarithm of what cosine similarities are multiplied with before a softmax.
    """

    def __init__(self, parent: nn.Module, maps: Maps) -> None:
        super().__init__()
        self.parent = parent
        self.image_map = _Map(maps.image)
        self.text_map = _Map(maps.text)
        self.register_buffer("logit_scale", torch.tensor(maps.logit_scale).log())

    @property
    def visual(self) -> nn.Module:
        """The parent's image tower, where open_clip's models have it."""
        return self.parent.get_submodule("visual")

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised images (b, 3, h, w) to vectors (b, dim); their length means nothing."""
        network: Any = self.parent
        mapped: Tensor = self.image_map(network.encode_image(images))
        return mapped


@dataclass(frozen=True, slots=True)
class AdaptedTexts:
    """The text side of an adapted model, see :class:`mmindex.models.trim.TextReader`.

    Attributes:
        parent: the parent's text side.
        map: what comes behind it.
    """

    parent: TextReader
    map: nn.Module

    @property
    def trims(self) -> bool:
        """Whether a batch may be trimmed to its longest text."""
        return self.parent.trims

    def lengths(self, tokens: Tensor) -> Tensor:
        """How many positions of int64 (b, c) each text needs: int64 (b,)."""
        return self.parent.lengths(tokens)

    def encode(self, tokens: Tensor, length: int) -> Tensor:
        """Vectors (b, dim) of int64 (b, c), read up to ``length``."""
        mapped: Tensor = self.map(self.parent.encode(tokens, length))
        return mapped


def adapt_network(
    parent: nn.Module, texts: TextReader, maps: Maps
) -> tuple[AdaptedNetwork, AdaptedTexts]:
    """Put the maps behind both sides of a parent."""
    network = AdaptedNetwork(parent, maps)
    return network, AdaptedTexts(texts, network.text_map)
