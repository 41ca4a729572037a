"""Vectors shaped like CLIP embeddings: clusters, a decaying spectrum, a shared mean direction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CHUNK = 65_536


def clustered(
    n: int, dim: int, seed: int = 0, *, decay: float = 0.5, spread: float = 0.7, mean: float = 0.6
) -> NDArray[np.float16]:
    """Unit vectors: float16 (n, dim), one cluster for each 100.

    Args:
        n: number of vectors.
        dim: their dimensions.
        seed: the same seed gives the same vectors.
        decay: the standard deviation along the i-th direction falls as i ** -decay.
        spread: distance of a vector to its cluster's centre, against that between centres.
        mean: length of the mean direction that all share (CLIP's cone).
    """
    rng = np.random.default_rng(seed)
    scale = (np.arange(1, dim + 1) ** -decay).astype(np.float32)
    scale /= np.linalg.norm(scale)
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    centres = rng.standard_normal((max(1, n // 100), dim), dtype=np.float32) * scale
    shared = rng.standard_normal(dim).astype(np.float32)
    shared *= mean / np.linalg.norm(shared)
    out = np.empty((n, dim), dtype=np.float16)
    for start in range(0, n, _CHUNK):
        rows = min(_CHUNK, n - start)
        noise = rng.standard_normal((rows, dim), dtype=np.float32) * scale
        part = (centres[rng.integers(0, len(centres), rows)] + spread * noise) @ turn + shared
        out[start : start + rows] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return out
