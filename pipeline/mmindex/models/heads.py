"""The last linear layer of a model's towers, which converts features to vectors.

Independent noise of equal variance in all features has the covariance ``W @ W.T`` in the vectors,
where W is the weight of the layer. Some directions of the vector space contain more of this noise
than others, and a fit to the vectors should trust them less.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from mmindex.core.modality import Modality
from mmindex.models.adapted_network import AdaptedNetwork

# The names of the layer in open_clip's models and in the photos network, and of the normalisation
# before it, whose gain is part of it. The layer is a linear module, or a parameter (features, dim).
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
    """Return the covariance in the vectors of independent noise of variance 1 in the features.

    Args:
        network: the model.
        side: the side of the tower.
        dim: number of dimensions of a vector.

    Returns:
        float64 (dim, dim); None if the tower does not end in a known linear layer.
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
    """Return the weight of a linear layer: float64 (dim, features)."""
    if isinstance(layer, nn.Linear):
        return layer.weight.detach().double().cpu()
    if isinstance(layer, torch.nn.Parameter) and layer.dim() == 2:
        return layer.detach().double().cpu().T
    return None
