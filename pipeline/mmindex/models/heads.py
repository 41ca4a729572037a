"""The last linear layer of a model's towers, which turns features into vectors.

What it is needed for: noise in the features that is alike and independent in all of them has, in
the vectors, the covariance ``W @ W.T`` of the layer's weight W. Some directions of a vector space
carry more of it than others, and a fit of these vectors should trust them less.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from mmindex.core.modality import Modality
from mmindex.models.adapted_network import AdaptedNetwork

# Where open_clip's models and the photos network have the layer, and the normalisation in front of
# it, whose gain belongs to it. The layer is a linear module, or a parameter (features, dim).
_LAYERS: Final = {
    Modality.IMAGE: (
        ("image_head", ""),
        ("visual.proj", "visual.ln_post"),
        ("visual.attnpool.c_proj", ""),
        ("visual.head.proj", ""),
        ("visual.trunk.head.fc", ""),
    ),
    Modality.TEXT: (
        ("text_head", ""),
        ("text_projection", "ln_final"),
        ("text.text_projection", "text.ln_final"),
        ("text.proj", ""),
    ),
}


def noise_covariance(network: nn.Module, side: Modality, dim: int) -> Tensor | None:
    """Covariance of the vectors if only independent noise of variance 1 were in the features.

    Args:
        network: the model.
        side: which tower.
        dim: numbers in a vector.

    Returns:
        float64 (dim, dim); None where the tower ends in something else than a known linear layer.
    """
    if isinstance(network, AdaptedNetwork):
        inner = noise_covariance(network.parent, side, dim)
        own = network.image_map if side is Modality.IMAGE else network.text_map
        turn = own.weight.double().cpu()
        return None if inner is None else turn @ inner @ turn.T
    for path, norm in _LAYERS[side]:
        weight = _weight(_find(network, path))
        if weight is None or weight.shape[0] != dim:
            continue
        gain = getattr(_find(network, norm), "weight", None) if norm else None
        if isinstance(gain, Tensor) and gain.shape == weight.shape[1:]:
            weight = weight * gain.detach().double().cpu()
        return weight @ weight.T
    return None


def _find(network: nn.Module, path: str) -> object:
    found: object = network
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _weight(layer: object) -> Tensor | None:
    """A linear layer's weight as float64 (dim, features)."""
    if isinstance(layer, nn.Linear):
        return layer.weight.detach().double().cpu()
    if isinstance(layer, torch.nn.Parameter) and layer.dim() == 2:
        return layer.detach().double().cpu().T
    return None
