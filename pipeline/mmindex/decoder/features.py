"""Feature maps of a frozen image tower."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmindex.core.errors import ModelMismatchError
from mmindex.models.preprocess import Pixels, PreprocessSpec


class Features:
    """Computes the last feature maps of an open_clip image tower."""

    def __init__(self, network: nn.Module, preprocess: PreprocessSpec, maps: int) -> None:
        """Use the last ``maps`` maps of ``network.visual``, or all if it has fewer.

        Raises:
            ModelMismatchError: the network has no such maps.
        """
        visual: Any = getattr(network, "visual", None)
        if not hasattr(visual, "forward_intermediates"):
            raise ModelMismatchError(
                "the image tower of this model has no feature maps for a decoder",
                "use an open_clip model",
            )
        self._visual, self._preprocess = visual, preprocess
        self._maps = min(maps, len(self._found(self._blank(), None)))

    def __call__(self, pixels: Pixels) -> list[Tensor]:
        """Return the maps of images, float32 (b, places, channels) each, the earliest layer first.

        Args:
            pixels: uint8 (b, height, width, 3).
        """
        return self._found(pixels, self._maps)

    @torch.inference_mode()
    def _found(self, pixels: Pixels, maps: int | None) -> list[Tensor]:
        device = next(self._visual.parameters()).device
        mean = torch.tensor(self._preprocess.mean, device=device).view(1, 3, 1, 1)
        std = torch.tensor(self._preprocess.std, device=device).view(1, 3, 1, 1)
        images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float()
        found = self._visual.forward_intermediates(
            images.div_(255.0).sub_(mean).div_(std), indices=maps, intermediates_only=True
        )
        return [part.flatten(2).transpose(1, 2) for part in found["image_intermediates"]]

    def shape(self) -> tuple[tuple[int, int], ...]:
        """Return channels and places of each map."""
        return tuple((part.shape[2], part.shape[1]) for part in self(self._blank()))

    def _blank(self) -> Pixels:
        return np.zeros((1, self._preprocess.height, self._preprocess.width, 3), np.uint8)

    def of_all(self, batches: Iterable[Pixels], count: int) -> list[Tensor]:
        """Return the maps of ``count`` images in float16, (count, places, channels) each."""
        kept = [torch.empty(count, n, c, dtype=torch.float16) for c, n in self.shape()]
        start = 0
        for pixels in batches:
            for whole, part in zip(kept, self(pixels), strict=True):
                whole[start : start + len(pixels)] = part.half()
            start += len(pixels)
        return kept
