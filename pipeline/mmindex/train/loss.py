"""The symmetric contrastive loss of CLIP (Radford et al. 2021, arXiv 2103.00020, figure 3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

MAX_LOG_SCALE = math.log(100.0)  # the paper clips the temperature there, against instability


def contrastive_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    same_text: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean of the two cross-entropies, image to text and text to image.

    Args:
        images: float32 (b, dim), unit length.
        texts: float32 (b, dim), unit length; row i describes image i.
        scale: the factor on cosine similarities (1 / temperature), scalar.
        same_text: bool (b, b), true where two rows hold the same caption. Off the diagonal such
            pairs are left out: a caption that two images share is no negative for either.

    Returns:
        Scalar float32.
    """
    # Outside autocast: bfloat16 would put logits near 20 off by a sixteenth.
    with torch.autocast(images.device.type, enabled=False):
        return _in_float32(images, texts, scale, same_text)


def _in_float32(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    same_text: torch.Tensor | None,
) -> torch.Tensor:
    logits = scale * images @ texts.T
    if same_text is not None:
        shared = same_text & ~torch.eye(len(images), dtype=torch.bool, device=images.device)
        logits = logits.masked_fill(shared, float("-inf"))
    own = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def equal_rows(tokens: torch.Tensor) -> torch.Tensor:
    """Bool (b, b): which rows of ``tokens`` (int64 (b, context)) are the same caption."""
    _, group = torch.unique(tokens, dim=0, return_inverse=True)
    same: torch.Tensor = group[:, None] == group[None, :]
    return same
