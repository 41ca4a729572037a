"""Quantised weights: matrices in 8 bits, embedding tables in 6, with a scale per row."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

# Suffix of the tensor with the divisor of each row of an 8-bit matrix.
_SCALE: Final = ":scale"


class PackedEmbedding(nn.Module):
    """An embedding table of 6-bit numbers, four in three bytes, with a scale per row.

    Rows are unpacked when they are looked up, because a text needs only a dozen of 30,000.
    """

    packed: Tensor
    scale: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.register_buffer("packed", torch.empty(rows, width // 4 * 3, dtype=torch.uint8))
        self.register_buffer("scale", torch.empty(rows, 1))

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the rows for int64 (...): float32 (..., width)."""
        parts = self.packed[numbers].view(*numbers.shape, -1, 3).to(torch.int32)
        first, second, third = parts.unbind(-1)
        whole = first | (second << 8) | (third << 16)
        levels = torch.stack([(whole >> shift) & 63 for shift in (0, 6, 12, 18)], dim=-1)
        return (levels.flatten(-2) - 32) * self.scale[numbers]


def pack_rows(table: Tensor) -> tuple[Tensor, Tensor]:
    """Pack float32 (rows, width) for :class:`PackedEmbedding`: ``packed`` and float16 ``scale``.

    ``width`` is a multiple of four.
    """
    scale = (table.abs().amax(dim=1, keepdim=True) / 31).half()
    levels = (table / scale.float()).round().clamp(-31, 31).to(torch.int32) + 32
    shifts = torch.tensor([0, 6, 12, 18], dtype=torch.int32)
    whole = (levels.view(len(table), -1, 4) << shifts).sum(dim=-1, dtype=torch.int32)
    packed = torch.stack([(whole >> shift) & 255 for shift in (0, 8, 16)], dim=-1)
    return packed.flatten(-2).to(torch.uint8), scale


def packed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return float32 weights in stored form: matrices in 8 bits, everything else in float16."""
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            stored[name] = tensor
        elif tensor.dim() < 2 or name.endswith((".places", ".scale")):
            stored[name] = tensor.half()
        else:
            rows = tensor.flatten(1)
            scale = (rows.abs().amax(dim=1) / 127).clamp_min(1e-7).half()
            shape = (-1, *[1] * (tensor.dim() - 1))
            levels = (tensor / scale.float().view(shape)).round().clamp(-127, 127)
            stored[name] = levels.to(torch.int8).contiguous()
            stored[name + _SCALE] = scale
    return stored


def unpacked(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights from :func:`packed` as float32."""
    state: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(_SCALE):
            continue
        if tensor.dtype is torch.int8:
            scale = stored[name + _SCALE].float().view(-1, *[1] * (tensor.dim() - 1))
            state[name] = tensor.float().mul_(scale)
        else:
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
    return state
