"""The network of an adapted model; see :mod:`mmindex.models.adapted`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 # the usual name

from mmindex.models.adapted import Affine, Maps
from mmindex.models.trim import TextReader


class _Map(nn.Module):
    """An affine map of vectors scaled to unit length, always in float32."""

    weight: Tensor
    bias: Tensor

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        # Buffers instead of a linear layer, so that `precision=int8` does not quantise them.
        self.register_buffer("weight", torch.from_numpy(affine.weight))
        self.register_buffer("bias", torch.from_numpy(affine.bias))

    def forward(self, vectors: Tensor) -> Tensor:
        """Map vectors (b, dim) of any length to float32 (b, dim), not of unit length."""
        with torch.autocast(vectors.device.type, enabled=False):
            mapped: Tensor = F.linear(
                F.normalize(vectors.float(), dim=1, eps=0.0), self.weight, self.bias
            )
        return mapped


class AdaptedNetwork(nn.Module):
    """The parent's network with a map after each tower.

    Attributes:
        parent: the parent's network.
        logit_scale: logarithm of the factor for cosine similarities before a softmax.
    """

    def __init__(self, parent: nn.Module, maps: Maps) -> None:
        super().__init__()
        self.parent = parent
        self.image_map = _Map(maps.image)
        self.text_map = _Map(maps.text)
        self.register_buffer("logit_scale", torch.tensor(maps.logit_scale).log())

    @property
    def visual(self) -> nn.Module:
        """The parent's image tower, under the name that it has in open_clip's models."""
        return self.parent.get_submodule("visual")

    def encode_image(self, images: Tensor) -> Tensor:
        """Encode normalised images (b, 3, h, w) as float32 (b, dim), not of unit length."""
        network: Any = self.parent
        mapped: Tensor = self.image_map(network.encode_image(images))
        return mapped


@dataclass(frozen=True, slots=True)
class AdaptedTexts:
    """The text side of an adapted model; see :class:`mmindex.models.trim.TextReader`.

    Attributes:
        parent: the parent's text side.
        map: the map after it.
    """

    parent: TextReader
    map: nn.Module

    @property
    def trims(self) -> bool:
        """Whether a batch can be trimmed to its longest text."""
        return self.parent.trims

    def lengths(self, tokens: Tensor) -> Tensor:
        """Return the number of positions that each text of int64 (b, c) needs: int64 (b,)."""
        return self.parent.lengths(tokens)

    def encode(self, tokens: Tensor, length: int) -> Tensor:
        """Encode the first ``length`` tokens of int64 (b, c) as vectors (b, dim)."""
        mapped: Tensor = self.map(self.parent.encode(tokens, length))
        return mapped


def adapt_network(
    parent: nn.Module, texts: TextReader, maps: Maps
) -> tuple[AdaptedNetwork, AdaptedTexts]:
    """Return a parent's network and text side with the maps after them."""
    network = AdaptedNetwork(parent, maps)
    return network, AdaptedTexts(texts, network.text_map)
