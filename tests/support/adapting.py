"""Pairs of vectors with a known relation, and a captioned store encoded by a tiny model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import mmindex
from mmindex.adaptation.pairs import Pairs, make_pairs
from support.models import TinyModel

COLOURS = ("red", "green", "blue", "white", "black", "yellow", "purple", "orange")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def related_pairs(count: int, dim: int = 32, captions: int = 2, seed: int = 0) -> Pairs:
    """Return images and captions that share twelve numbers, seen through two different maps."""
    rng = np.random.default_rng(seed)
    known = rng.normal(size=(count, 12))
    owner = np.repeat(np.arange(count), captions)
    images = known @ rng.normal(size=(12, dim)) + 0.5 * rng.normal(size=(count, dim)) + 1.0
    texts = known[owner] @ rng.normal(size=(12, dim)) + 0.5 * rng.normal(size=(len(owner), dim))
    return make_pairs(unit(images).astype(np.float32), unit(texts).astype(np.float32), owner)


def unrelated(pairs: Pairs, seed: int = 0) -> Pairs:
    """Return the same images and captions in random order."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    return Pairs(pairs.images[order], pairs.texts, pairs.counts)


def coloured_squares(folder: Path, count: int = 96) -> Path:
    """Write images of a square on a background, each with a caption that names both colours."""
    folder.mkdir(parents=True)
    lines = ["file_name,caption"]
    for number in range(count):
        ground, square = COLOURS[number % 8], COLOURS[(number // 8 + number % 8 + 1) % 8]
        image = Image.new("RGB", (40, 40), ground)
        low = 4 + number % 5
        ImageDraw.Draw(image).rectangle((low, low, low + 22, low + 22), fill=square)
        image.save(folder / f"{number:03d}.png")
        lines.append(f"{number:03d}.png,a {square} square on {ground} ground")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


def build_squares(root: Path, folder: Path, model: TinyModel) -> None:
    """Build a store of these images with a tiny model."""
    mmindex.build(root, [folder], model=model.name, workers=0)
