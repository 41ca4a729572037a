"""Early fusion: captions count in the vectors of items only if that finds more images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmindex.evaluate import fit_items
from mmindex.evaluate.fit_items import WEIGHTS, Said, fused_vectors
from mmindex.store.snapshot import Snapshot
from support.models import fake_info
from support.stores import Side, captions_table, images_table, key_of, make_store

IMAGES, DIM = 60, 16
Float32 = NDArray[np.float32]


def unit(vectors: NDArray[np.float64]) -> Float32:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def store(
    root: Path, *, captions: int = 4, image_noise: float = 1.0, text_noise: float = 0.5
) -> Snapshot:
    """Return images and captions that scatter around the same random points."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(IMAGES, DIM))
    images = unit(points + image_noise * rng.normal(size=points.shape))
    owners = np.repeat(np.arange(IMAGES), captions)
    rng.shuffle(owners)  # the table of captions is not sorted by image
    texts = unit(points[owners] + text_noise * rng.normal(size=(len(owners), DIM)))
    names = [f"image {number}" for number in range(IMAGES)]
    said = [(names[owner], f"caption {row}") for row, owner in enumerate(owners.tolist())]
    keys = [key_of(name) for name in names]
    sides = {"image": Side(keys, images)}
    if said:
        sides["text"] = Side([key_of(text) for _, text in said], texts)
    rows = [(name, key, name) for name, key in zip(names, keys, strict=True)]
    info = fake_info(dim=DIM)
    return make_store(root, images_table(rows), captions_table(said), sides, info)


def test_captions_that_help_count(tmp_path: Path) -> None:
    fit = fit_items.fit_items(store(tmp_path))
    assert fit.weight > 0
    assert fit.queries == 240
    assert fit.items["r@1"] > fit.images["r@1"]


def test_captions_that_do_not_help_do_not_count(tmp_path: Path) -> None:
    fit = fit_items.fit_items(store(tmp_path, image_noise=0.1, text_noise=4.0))
    assert fit.weight == 0
    assert fit.items == fit.images


@pytest.mark.parametrize("captions", [0, 1])
def test_with_at_most_one_caption_there_is_nothing_to_fit(tmp_path: Path, captions: int) -> None:
    """A caption that is left out leaves its image without captions."""
    assert fit_items.fit_items(store(tmp_path, captions=captions)).weight == 0


def test_ranks_are_those_of_the_definition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_items, "_ROWS", 7)
    snapshot = store(tmp_path, captions=3)
    said = Said.of(snapshot)
    images = snapshot.vectors("image").take(np.arange(IMAGES)).astype(np.float32)
    texts = snapshot.vectors("text").take(np.arange(len(said.owners))).astype(np.float32)
    asked = np.array([0, 5, 100, 179])
    found = fit_items._ranks(snapshot, said, asked)
    for number, weight in enumerate(WEIGHTS):
        for place, row in enumerate(asked.tolist()):
            kept = np.arange(len(said.owners)) != row
            means = np.stack([
                texts[kept & (said.owners == image)].mean(axis=0) for image in range(IMAGES)
            ])  # fmt: skip
            scores = fused_vectors(images, means, weight) @ texts[row]
            rank = 1 + int((scores > scores[said.owners[row]] + 1e-6).sum())
            assert found[number, place] == rank


def test_items_have_unit_length_and_images_without_captions_stay() -> None:
    rng = np.random.default_rng(0)
    images = unit(rng.normal(size=(5, DIM)))
    captions = unit(rng.normal(size=(5, DIM)))
    captions[2] = 0
    captions[3] = -images[3]
    fused = fused_vectors(images, captions, 1.0)
    assert np.linalg.norm(fused, axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    assert fused[2] == pytest.approx(images[2])
    assert np.isfinite(fused).all()
    assert fused_vectors(images, captions, 0.0) == pytest.approx(images, abs=1e-6)
