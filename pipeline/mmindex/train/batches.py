"""Batches as a function of the step number, so that a resumed run sees the same batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from mmindex.core.workers import WORKERS
from mmindex.train.corpus import Decoder, Pixels, Tokens, as_is
from mmindex.train.settings import CaptionedImage, TrainSettings

POOL: Final = 16  # batches per pool: a larger pool has better groups, but takes longer to sort
_COLUMNS: Final = 2048  # columns of word vectors; words of a larger vocabulary share columns
_POWER_STEPS: Final = 8  # rounds to find a direction of large variance; the largest is not needed


def pool_of(step: int, batches_an_epoch: int) -> tuple[int, int]:
    """Return (first step, number of batches) of the pool that ``step`` draws from."""
    place = step % batches_an_epoch
    start = place - place % POOL
    return step - place + start, min(POOL, batches_an_epoch - start)


def word_vectors(rows: list[NDArray[np.int32]]) -> NDArray[np.float32]:
    """Return a vector of each image's caption words: float32 (n, columns), rare words weigh more.

    Args:
        rows: for each image its captions' tokens, int32 (captions, context).
    """
    present = np.zeros((len(rows), _COLUMNS), np.float32)
    for image, tokens in enumerate(rows):
        present[image, tokens.ravel() % _COLUMNS] = 1
    seen = present.sum(axis=0)
    # Words that all images have (padding, the start and end of text) have zero weight.
    weighted: NDArray[np.float32] = present * np.log(len(rows) / np.maximum(seen, 1))
    weighted /= np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-6)
    return weighted


def mixed_batches(
    vectors: NDArray[np.float32], batches: int, group_size: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Cut a pool into equal batches, each of several groups of about ``group_size`` similar rows.

    In random batches, position and colours are enough to identify an image, so finer details are
    learned late: hard negatives are a known remedy (Robinson et al. 2021, arXiv 2010.04592).
    Grouping by the captions' words, not by the network's own vectors, makes a batch a function of
    the step number alone, so that a killed run resumes exactly.

    Args:
        vectors: float32 (n, d), one row per image, see :func:`word_vectors`; n is a multiple of
            ``batches``.

    Returns:
        Row numbers of each batch; every row is in exactly one.
    """
    groups = _halved(vectors, np.arange(len(vectors)), max(1, len(vectors) // group_size), rng)
    order = np.concatenate([groups[place] for place in rng.permutation(len(groups))])
    return np.split(order, batches)


def _halved(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], parts: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Split ``rows`` into ``parts`` of equal size, across a direction of large spread."""
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


_CROP_GROUP: Final = 16  # images with the same random crop, so that resizing is vectorised
_ORDER, _CAPTIONS, _CROPS, _GROUPS = range(4)  # independent streams of random numbers


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's input.

    Attributes:
        pixels: uint8 (b, 3, s, s), channels last in memory.
        tokens: int64 (captions, b, context); row [k, i] describes image i.
        unreadable: images left out because they could not be read.
    """

    pixels: torch.Tensor
    tokens: torch.Tensor
    unreadable: int


class Batches(Dataset[Batch]):
    """The batch of each step, from decoded pixels or, without them, from the items."""

    def __init__(
        self,
        tokens: Tokens,
        images: Pixels | tuple[Sequence[CaptionedImage], Decoder],
        settings: TrainSettings,
    ) -> None:
        self._tokens, self._images, self._settings = tokens, images, settings
        skip = images.unreadable if isinstance(images, Pixels) else ()
        self._pool: tuple[int, list[NDArray[np.int64]]] | None = None
        self._usable = np.setdiff1d(np.arange(len(tokens.offsets) - 1), skip)

    def __len__(self) -> int:
        return self._settings.steps

    def __getitem__(self, step: int) -> Batch:
        settings = self._settings
        chosen = self._choose(step)
        pixels, read = self._read(chosen)
        tokens = self._tokens.pick(
            chosen[read],
            settings.captions_per_image,
            np.random.default_rng((settings.seed, _CAPTIONS, step)),
        )
        crops = np.random.default_rng((settings.seed, _CROPS, step))
        return Batch(
            random_crops(torch.from_numpy(pixels), settings.crop_scale, crops),
            torch.from_numpy(tokens),
            int((~read).sum()),
        )

    def _choose(self, step: int) -> NDArray[np.int64]:
        """Return the images of a step, sorted: reading a mapped file in order is faster."""
        count, settings = len(self._usable), self._settings
        if settings.hard_negatives == 0:
            return self._usable[np.sort(step_indices(count, step, settings))]
        first, batches = pool_of(step, count // min(settings.batch_size, count))
        if self._pool is None or self._pool[0] != first:
            steps = range(first, first + batches)
            members = np.concatenate([step_indices(count, each, settings) for each in steps])
            words = word_vectors([self._tokens.of(image) for image in self._usable[members]])
            rng = np.random.default_rng((settings.seed, _GROUPS, first))
            parts = mixed_batches(words, batches, settings.hard_negatives, rng)
            self._pool = first, [members[rows] for rows in parts]
        return self._usable[np.sort(self._pool[1][step - first])]

    def _read(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        if isinstance(self._images, Pixels):
            return self._images.rows[chosen], np.ones(len(chosen), np.bool_)
        items, decoder = self._images
        images = [decoder(items[int(index)]) for index in chosen]
        read = np.array([image is not None for image in images])
        found = [image for image in images if image is not None]
        blank = np.zeros((0, *decoder.shape), np.uint8)
        return np.stack(found) if found else blank, read


def step_indices(count: int, step: int, settings: TrainSettings) -> NDArray[np.int64]:
    """Return the images of a step: each once per epoch, in a new order every epoch."""
    size = min(settings.batch_size, count)
    epoch, place = divmod(step, count // size)
    order = _epoch_order(count, settings.seed, epoch)
    return order[place * size : (place + 1) * size]


@lru_cache(maxsize=1)
def _epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(count)


def random_crops(pixels: torch.Tensor, least_area: float, rng: np.random.Generator) -> torch.Tensor:
    """Crop at random and resize back: uint8 (b, h, w, 3) to (b, 3, h, w), channels last.

    Images are never mirrored or recoloured, because captions mention sides and colours.

    Args:
        least_area: smallest share of the area that is kept.
    """
    whole = pixels.permute(0, 3, 1, 2)
    if least_area == 1 or len(pixels) == 0:
        return whole
    height, width = whole.shape[2:]
    cropped = []
    for start in range(0, len(whole), _CROP_GROUP):
        part = whole[start : start + _CROP_GROUP]
        edge = float(np.sqrt(rng.uniform(least_area, 1)))
        tall, wide = max(1, round(edge * height)), max(1, round(edge * width))
        top, left = rng.integers(0, (height - tall + 1, width - wide + 1))
        window = part[:, :, top : top + tall, left : left + wide]
        same = (tall, wide) == (height, width)
        cropped.append(part if same else F.interpolate(window, (height, width), mode="bilinear"))
    return torch.cat(cropped).contiguous(memory_format=torch.channels_last)


def batches_from(batches: Batches, first_step: int, workers: int) -> Iterator[Batch]:
    """Yield the batches from ``first_step`` on, computed ahead by ``workers`` processes."""
    yield from DataLoader(
        batches,
        batch_size=None,
        sampler=range(first_step, len(batches)),
        num_workers=workers,
        collate_fn=as_is,
        multiprocessing_context=WORKERS if workers else None,
        persistent_workers=workers > 0,
    )
