"""Groups of points on a map, and their names: the nearest captions or labels.

Groups are regions of the map, so that their colours and names are readable. With t-SNE, little is
lost: on 159 photographs, regions explain 22.9 % of the variance of the vectors, and k-means on the
vectors themselves 23.4 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

MOST: Final = 16
"""The largest number of groups: more cannot be told apart by their colours."""
_ROUNDS: Final = 25
_FLAT: Final = 1e-6  # shorter vectors consist of rounding errors


def group(xy: Float32, seed: int) -> Int64:
    """Return the number of each point's group, the largest group first: int64 (n,).

    The number of groups is about the root of half the number of points, and at most :data:`MOST`.

    Args:
        xy: float32 (n, 2), positions.
        seed: the seed of k-means.
    """
    distinct = len(np.unique(xy, axis=0))
    wanted = min(MOST, distinct, round(np.sqrt(len(xy) / 2)))
    if wanted < 2:
        return np.zeros(len(xy), dtype=np.int64)
    means = faiss.Kmeans(2, wanted, niter=_ROUNDS, seed=seed, min_points_per_centroid=1)
    means.train(xy)
    _, nearest = means.index.search(xy, 1)
    return by_size(nearest[:, 0].astype(np.int64))


def by_size(groups: Int64) -> Int64:
    """Return groups with new numbers from 0, the largest first: int64 (n,)."""
    found, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.lexsort((found, -sizes))
    numbers = np.empty(len(found), dtype=np.int64)
    numbers[order] = np.arange(len(found))
    renumbered: Int64 = numbers[inverse]
    return renumbered


def centres(vectors: Float32, groups: Int64) -> Float64:
    """Return the mean vector of each group: float64 (groups, dim)."""
    count = int(groups.max(initial=-1)) + 1
    sums = np.zeros((count, vectors.shape[1]))
    np.add.at(sums, groups, vectors)
    means: Float64 = sums / np.bincount(groups, minlength=count)[:, None]
    return means


def likeness(middles: Float64, texts: Float32) -> Float64:
    """Return how well each text fits each group: float64 (groups, texts).

    What all groups and all texts have in common is left out: all images of a corpus can be near
    "a photo", and images and texts lie in different regions.

    Args:
        middles: float64 (groups, dim), from :func:`centres`.
        texts: float32 (texts, dim), unit length.
    """
    apart = _centred(middles) @ _centred(texts.astype(np.float64)).T
    return apart if len(middles) > 1 and len(texts) > 1 else middles @ texts.T.astype(np.float64)


def _centred(rows: Float64) -> Float64:
    moved = rows - rows.mean(axis=0)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    centred: Float64 = np.where(lengths > _FLAT, moved / np.maximum(lengths, _FLAT), 0.0)
    return centred


def distinct_names(fits: Float64, names: Sequence[str]) -> list[str]:
    """Return a different name for each group; empty for groups for which no name is left.

    Args:
        fits: float64 (groups, names), how well each name fits.
        names: the names, possibly with repetitions.
    """
    found = [""] * len(fits)
    used: set[str] = set()
    best = np.argsort(-fits, axis=1, kind="stable")
    # Groups that a name fits best choose first.
    for number in np.argsort(-fits.max(axis=1, initial=-np.inf), kind="stable").tolist():
        name = next((names[at] for at in best[number].tolist() if names[at] not in used), "")
        used.add(name)
        found[number] = name
    return found
