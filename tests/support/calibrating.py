"""Corpora of vectors with captions, for calibrations: no files, no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmindex.core.config import EvaluateConfig
from mmindex.core.modality import Modality
from mmindex.evaluate.fit import calibrate
from mmindex.search.calibration import write_calibrations
from mmindex.store.snapshot import Snapshot
from support.models import FakeEncoder, fake_info
from support.stores import (
    Side,
    captions_table,
    images_table,
    key_of,
    make_store,
    with_manifest,
)

DIM = 32
CONFIG = EvaluateConfig()


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class CaptionEncoder(FakeEncoder):
    """An encoder that knows the captions of a store: it returns their stored vectors."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(dim=DIM)
        self._snapshot = snapshot

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._snapshot.vector_of(Modality.TEXT, key_of(text)) for text in texts])


def captioned(
    root: Path, images: int, *, per_image: int = 2, noise: float = 1.0, seed: int = 0
) -> Snapshot:
    """Publish a store whose captions are near their images; ``noise`` increases the distance."""
    rng = np.random.default_rng(seed)
    topics = unit(rng.normal(size=(12, DIM)))
    pictures = unit(
        topics[rng.integers(12, size=images)] + rng.normal(size=(images, DIM)) / DIM**0.5
    )
    owners = np.repeat(np.arange(images), per_image)
    texts = unit(pictures[owners] + noise * rng.normal(size=(len(owners), DIM)) / DIM**0.5)
    return store_of(root, pictures, owners, texts)


def store_of(root: Path, pictures: np.ndarray, owners: np.ndarray, texts: np.ndarray) -> Snapshot:
    """Publish vectors of images and captions; ``owners`` are the images of the captions."""
    rows = [(f"id/{n}", key_of(f"image {n}"), f"/{n}.png") for n in range(len(pictures))]
    captions = [(f"id/{owner}", f"caption {n}") for n, owner in enumerate(owners.tolist())]
    sides = {"image": Side([key for _, key, _ in rows], pictures)}
    if captions:
        sides["text"] = Side([key_of(text) for _, text in captions], texts)
    return make_store(root, images_table(rows), captions_table(captions), sides, fake_info(dim=DIM))


def calibrated(snapshot: Snapshot) -> Snapshot:
    """Return the same version with its calibrations."""
    ref = write_calibrations(snapshot.objects, calibrate(snapshot, CONFIG))
    return with_manifest(snapshot, objects=(*snapshot.manifest.objects, ref))
