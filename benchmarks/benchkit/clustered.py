"""Vectors shaped like CLIP embeddings: clusters, a power-law spectrum, a shared mean direction.

The results of an index depend on how vectors are generated, so tests and benchmarks share this
seeded generator. It imitates:

- a power-law spectrum: the standard deviation along the i-th direction falls as i ** -decay, in a
  random orthogonal basis (at 0.5, 259 of 512 directions have 90 % of the variance);
- clusters, one for each 100 vectors: captions of one image, images of one motif;
- a cone: all embeddings of one modality share a mean direction, 0.6 of their length.
"""

from __future__ import annotations

from pathlib import Path

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
        spread: distance of a vector to its cluster's centre, relative to that between centres.
        mean: length of the mean direction that all vectors share (CLIP's cone).
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


def write_case(folder: Path, n: int, dim: int, queries: int, k: int) -> None:
    """Write files for all programs: ``vectors.npy`` (float16), ``queries.npy``, ``truth.npy``.

    Queries are drawn together with the vectors, so that they lie in the same clusters; the truth
    is exact (float32 products with the float16 vectors), int64 (queries, k).
    """
    from mmindex.index.exact import exact_search

    folder.mkdir(parents=True, exist_ok=True)
    rows = clustered(n + queries, dim)
    vectors, asked = rows[:n], rows[n:].astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    ids = np.arange(n)
    starts = range(0, n, 32_768)
    blocks = ((ids[at : at + 32_768], vectors[at : at + 32_768]) for at in starts)
    np.save(folder / "truth.npy", exact_search(blocks, asked, k)[1])
    np.save(folder / "queries.npy", asked)
    np.save(folder / "vectors.npy", vectors)
