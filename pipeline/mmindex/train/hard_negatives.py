"""Batches whose images are hard to tell apart: grouped by the words of their captions.

Against random company a picture is known by its place and colours alone, so finer things are
learned late. Hard negatives from the corpus itself are an old remedy (Robinson et al. 2021, arXiv
2010.04592). Grouping by words, not by the network's own vectors, makes a batch a function of the
step number alone, so that a killed run resumes exactly.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

POOL: Final = 16  # batches that are cut from one pool: more are better sorted, and slower to sort
_COLUMNS: Final = 2048  # of word vectors; a larger vocabulary shares columns
_POWER_STEPS: Final = 8  # enough for a direction of large spread; the largest is not needed


def pool_of(step: int, batches_an_epoch: int) -> tuple[int, int]:
    """(first step, number of batches) of the pool that ``step`` draws from."""
    place = step % batches_an_epoch
    start = place - place % POOL
    return step - place + start, min(POOL, batches_an_epoch - start)


def word_vectors(rows: list[NDArray[np.int32]]) -> NDArray[np.float32]:
    """What each image's captions speak of: float32 (n, columns), rare words weigh more.

    Args:
        rows: for each image its captions' tokens, int32 (captions, context).
    """
    present = np.zeros((len(rows), _COLUMNS), np.float32)
    for image, tokens in enumerate(rows):
        present[image, tokens.ravel() % _COLUMNS] = 1
    seen = present.sum(axis=0)
    # Words that all images have (padding, the start and end of text) weigh nothing.
    weighted: NDArray[np.float32] = present * np.log(len(rows) / np.maximum(seen, 1))
    weighted /= np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-6)
    return weighted


def mixed_batches(
    vectors: NDArray[np.float32], batches: int, group_size: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Cut a pool into equal batches, each of several groups of about ``group_size`` similar rows.

    Args:
        vectors: float32 (n, d), one row an image; n is a multiple of ``batches``.

    Returns:
        row numbers of each batch; every row is in exactly one.
    """
    groups = _halved(vectors, np.arange(len(vectors)), max(1, len(vectors) // group_size), rng)
    order = np.concatenate([groups[place] for place in rng.permutation(len(groups))])
    return np.split(order, batches)


def _halved(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], parts: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Split ``rows`` in ``parts`` of equal size, across the direction of largest spread."""
    if parts == 1:
        return [rows]
    centred = vectors[rows] - vectors[rows].mean(axis=0)
    direction = np.asarray(rng.standard_normal(vectors.shape[1]), np.float32)
    for _ in range(_POWER_STEPS):
        direction = centred.T @ (centred @ direction)
        direction = direction / np.float32(max(float(np.linalg.norm(direction)), 1e-12))
    ordered = rows[np.argsort(centred @ direction, kind="stable")]
    left = parts // 2
    cut = len(rows) * left // parts
    return [
        *_halved(vectors, ordered[:cut], left, rng),
        *_halved(vectors, ordered[cut:], parts - left, rng),
    ]
