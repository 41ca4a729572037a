"""The type that a model computes in, and its weights in this type."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def compute_type(precision: str) -> torch.dtype | None:
    """Return the type for autocast; None for fp32, and for int8, whose layers are quantised."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def convert_weights(model: torch.nn.Module, dtype: torch.dtype | None) -> None:
    """Store the weights of linear layers and convolutions in the type that autocast uses.

    Autocast would convert them again for every batch. The vectors stay the same, bit for bit,
    because the conversion is the same. All other weights stay float32, as autocast leaves them.

    Args:
        model: for inference; changed in place.
        dtype: from :func:`compute_type`; None changes nothing.
    """
    import torch
    from torch.nn import Conv1d, Conv2d, Linear, MultiheadAttention

    if dtype is None:
        return
    for module in model.modules():
        if isinstance(module, Linear | Conv1d | Conv2d | MultiheadAttention):
            # With biases in this type, torch's attention uses another algorithm on CPUs.
            for weight in module.parameters(recurse=False):
                if weight.ndim > 1:
                    weight.data = weight.data.to(dtype)
        if hasattr(module, "get_cast_dtype"):
            # open_clip's text towers convert their inputs to the type of the first linear layer,
            # which would round them.
            module.get_cast_dtype = lambda: torch.float32  # type: ignore[assignment]
