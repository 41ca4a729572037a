"""Vectors in 8 bits a number: half the bytes of float16, for re-ranking that is nearly exact.

A row is its numbers divided by a scale of its own, the largest of them over 127, and rounded; then
the scale as float32. Nothing is trained, so rows can be added later, and what was rounded once
stays as it is when it is read and written again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float16 = NDArray[np.float16]
Bytes = NDArray[np.uint8]

_LEVELS = 127
_SCALE_BYTES = 4
_ROWS_AT_ONCE = 4_096  # rounded together, as float32: some MiB
# Below, the scales eat up what the numbers save, and a row's size would not tell the two apart.
LEAST_DIM = 16


def row_bytes(dim: int) -> int:
    """Bytes of one row."""
    return dim + _SCALE_BYTES


def pack(rows: Float16) -> Bytes:
    """Round float16 (m, dim) to uint8 (m, dim + 4)."""
    out = np.empty((len(rows), row_bytes(rows.shape[1])), dtype=np.uint8)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        wide = rows[part].astype(np.float32)
        scales = np.abs(wide).max(axis=1, keepdims=True) / np.float32(_LEVELS)
        scales[scales == 0.0] = 1.0  # a row of zeros, where a removed one was
        out[part, :-_SCALE_BYTES] = np.rint(wide / scales).astype(np.int8).view(np.uint8)
        out[part, -_SCALE_BYTES:] = scales.view(np.uint8)
    return out


def unpack(rows: Bytes) -> Float16:
    """Read uint8 (m, dim + 4) as float16 (m, dim)."""
    scales = np.ascontiguousarray(rows[:, -_SCALE_BYTES:]).view(np.float32)
    numbers = rows[:, :-_SCALE_BYTES].view(np.int8)
    return (numbers * scales).astype(np.float16)
