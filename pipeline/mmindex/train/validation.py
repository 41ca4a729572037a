"""Recall of the network on images that are not used for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mmindex.core.errors import DataError
from mmindex.models.tokenizer import Tokenize, shorten
from mmindex.train.corpus import Decoder
from mmindex.train.settings import CaptionedImage
from mmindex.train.towers import image_vectors, text_vectors

_AT_ONCE: Final = 250  # images or captions per forward pass
KS: Final = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Validation:
    """Held-out images, decoded, and their captions.

    Attributes:
        pixels: uint8 (n, s, s, 3).
        tokens: int64 (captions, context).
        own: int64 (captions,): the image of each caption.
    """

    pixels: NDArray[np.uint8]
    tokens: torch.Tensor
    own: torch.Tensor


def load_validation(
    items: Sequence[CaptionedImage],
    decoder: Decoder,
    tokenize: Tokenize,
) -> Validation:
    """Decode the held-out items; those that cannot be read are left out.

    Raises:
        DataError: none can be read.
    """
    pairs = [(item, decoder(item)) for item in items if item.captions]
    usable = [(item, image) for item, image in pairs if image is not None]
    if not usable:
        raise DataError("no validation image can be read")
    texts = [text for item, _ in usable for text in item.captions]
    counts = torch.tensor([len(item.captions) for item, _ in usable])
    return Validation(
        np.stack([image for _, image in usable]),
        torch.from_numpy(tokenize(shorten(texts))),
        torch.repeat_interleave(torch.arange(len(usable)), counts),
    )


@torch.inference_mode()
def measure_recall(
    network: nn.Module,
    validation: Validation,
    normalise: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
) -> dict[str, float]:
    """Return recall@1/5/10 in both directions in percent, keys ``t2i_r@1`` ... ``i2t_r@10``.

    Args:
        normalise: pixels uint8 (b, 3, s, s) to the network's float32 input, on its device.
    """
    network.eval()
    images = torch.cat(
        [
            image_vectors(network, normalise(torch.from_numpy(part).permute(0, 3, 1, 2)))
            for part in np.array_split(validation.pixels, -(-len(validation.pixels) // _AT_ONCE))
        ]
    )
    texts = torch.cat(
        [
            text_vectors(network, part.to(device))
            for part in torch.split(validation.tokens, _AT_ONCE)
        ]
    )
    with torch.autocast(device.type, enabled=False):  # with bfloat16, many scores would be equal
        return recall(texts @ images.T, validation.own.to(device))


def recall(scores: torch.Tensor, own: torch.Tensor) -> dict[str, float]:
    """Return recall from scores float32 (captions, images); caption i belongs to image ``own[i]``.

    Of equal scores, the one with the lower row is first, as in :mod:`mmindex.evaluate.recall`.

    Raises:
        DataError: a score is not a number.
    """
    if not torch.isfinite(scores).all():
        raise DataError("the network returns vectors that are not numbers", "lower `learning_rate`")
    of_texts = _ranks(scores, own)
    foreign = own[:, None] != torch.arange(scores.shape[1], device=own.device)
    best = scores.masked_fill(foreign, float("-inf")).argmax(dim=0)
    of_images = _ranks(scores.T, best)
    ways = (("t2i", of_texts), ("i2t", of_images))
    return {f"{way}_r@{k}": 100 * float((r < k).double().mean()) for way, r in ways for k in KS}


def _ranks(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return how many columns are before column ``right[i]`` in row i: int64 (rows,)."""
    columns = torch.arange(scores.shape[1], device=scores.device)
    mark = scores.gather(1, right[:, None])
    ahead = (scores > mark) | ((scores == mark) & (columns < right[:, None]))
    return ahead.sum(dim=1)
