"""Positions of vectors in a plane, so that near vectors are near each other.

With the extra ``map``, this is t-SNE (L. van der Maaten and G. Hinton, Visualizing Data using
t-SNE, JMLR 2008) as in openTSNE (P. G. Poličar et al., JSS 2024), started from the first two
principal components. Without it, or for a few vectors, these components are the positions
themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from mmindex.core.progress import counter, get_logger
from mmindex.core.system import usable_cores

if TYPE_CHECKING:
    from tqdm import tqdm

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Distances between images hardly change when smaller components are left out.
_COMPONENTS: Final = 50
# With fewer vectors, t-SNE shows groups that do not exist.
_FEWEST: Final = 30
_PERPLEXITY: Final = 30
# As in openTSNE: first with stronger attraction, so that groups form, then without.
_EARLY: Final = 250
_LATE: Final = 500
_TOLD: Final = 25  # number of steps between two updates of the progress bar
# Up to this number, exact repulsion is faster than its interpolation.
_SMALL: Final = 2_000


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest other vectors of each vector, nearest first.

    Attributes:
        ids: int64 (n, k), positions of vectors.
        distances: float64 (n, k), Euclidean distances of the principal components.
    """

    ids: Int64
    distances: Float64


@dataclass(frozen=True, slots=True)
class Projection:
    """Positions in a plane.

    Attributes:
        xy: float32 (n, 2), 0 to 1.
        method: ``t-SNE`` or ``PCA``.
        reason: why it is not t-SNE; empty for t-SNE.
    """

    xy: Float32
    method: str
    reason: str = ""


def components(vectors: Float32) -> Float32:
    """Return the first principal components of vectors: float32 (n, up to 50).

    The sign of each component is fixed, so that a mirrored map is not another result.
    """
    wide = vectors.astype(np.float64)
    wide -= wide.mean(axis=0) if len(wide) else 0.0
    _, axes = np.linalg.eigh(wide.T @ wide)
    axes = axes[:, ::-1][:, :_COMPONENTS]
    largest = np.abs(axes).argmax(axis=0)
    axes *= np.sign(axes[largest, np.arange(axes.shape[1])])
    found: Float32 = np.ascontiguousarray(wide @ axes, dtype=np.float32)
    return found


def neighbours(parts: Float32) -> Neighbours:
    """Return the nearest other vectors of each vector, by exact search.

    Args:
        parts: float32 (n, d), from :func:`components`.
    """
    wanted = min(3 * _PERPLEXITY, len(parts) - 1)
    if wanted < 1:
        return Neighbours(np.empty((len(parts), 0), np.int64), np.empty((len(parts), 0)))
    index = faiss.IndexFlatL2(parts.shape[1])
    index.add(parts)
    squares, ids = index.search(parts, wanted + 1)
    # A vector is its own neighbour, though not always the first: others can be equal to it.
    own = ids == np.arange(len(parts))[:, None]
    own[~own.any(axis=1), -1] = True
    distances = np.sqrt(np.maximum(squares[~own], 0.0)).astype(np.float64)
    shape = (len(parts), wanted)
    return Neighbours(ids[~own].astype(np.int64).reshape(shape), distances.reshape(shape))


def project(parts: Float32, near: Neighbours, seed: int) -> Projection:
    """Return a position for each vector.

    Args:
        parts: float32 (n, d), from :func:`components`.
        near: from :func:`neighbours`.
        seed: the seed of t-SNE.
    """
    flat = np.zeros((len(parts), 2), dtype=np.float64)
    flat[:, : min(2, parts.shape[1])] = parts[:, :2]
    distinct = len(np.unique(parts, axis=0))
    if distinct < _FEWEST:
        few = f"t-SNE needs {_FEWEST} different images, and there are {distinct}"
        return Projection(_scaled(flat), "PCA", few)
    if find_spec("openTSNE") is None:
        missing = "t-SNE needs a package: pip install 'mmindex[map]'"
        get_logger("map").warning(f"the map shows two principal components: {missing}")
        return Projection(_scaled(flat), "PCA", missing)
    return Projection(_scaled(_tsne(flat, near, seed)), "t-SNE")


def _tsne(start: Float64, near: Neighbours, seed: int) -> Float64:
    import openTSNE
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    # Positions do not depend on the number of threads.
    threads = usable_cores()
    affinities = openTSNE.affinity.PerplexityBasedNN(
        knn_index=PrecomputedNeighbors(near.ids, near.distances),
        perplexity=min(_PERPLEXITY, near.ids.shape[1] / 3),
        n_jobs=threads,
        random_state=seed,
    )
    spread = start[:, 0].std()
    positions: Any = openTSNE.TSNEEmbedding(
        start / (spread * 1e4) + np.random.default_rng(seed).normal(0, 1e-6, start.shape),
        affinities,
        negative_gradient_method="bh" if len(start) <= _SMALL else "fft",
        n_jobs=threads,
        random_state=seed,
    )
    with counter(total=_EARLY + _LATE, label="map", unit="step") as progress:
        told = {"callbacks": lambda *_: _advance(progress), "callbacks_every_iters": _TOLD}
        positions = positions.optimize(_EARLY, exaggeration=12, momentum=0.5, **told)
        positions = positions.optimize(_LATE, momentum=0.8, **told)
    return np.asarray(positions, dtype=np.float64)


def _advance(progress: tqdm[Any]) -> bool:
    """Advance the progress bar; a callback of openTSNE returns whether to stop."""
    progress.update(_TOLD)
    return False


def _scaled(xy: Float64) -> Float32:
    """Return positions from 0 to 1 with equal scales in both directions, in the middle."""
    if not len(xy):
        return xy.astype(np.float32)
    low, high = xy.min(axis=0), xy.max(axis=0)
    side = float((high - low).max())
    if side <= 1e-6:  # only rounding errors
        return np.full(xy.shape, 0.5, dtype=np.float32)
    scaled: Float32 = ((xy - (low + high) / 2) / side + 0.5).astype(np.float32)
    return scaled
