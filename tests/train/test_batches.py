from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch

from mmindex.train.batches import random_crops, step_indices
from mmindex.train.corpus import Tokens
from mmindex.train.settings import TrainSettings

SETTINGS = TrainSettings(steps=100, batch_size=8, seed=3)


def test_an_epoch_uses_each_image_at_most_once_and_the_next_in_another_order() -> None:
    epochs = [
        [step_indices(40, epoch * 5 + step, SETTINGS).tolist() for step in range(5)]
        for epoch in range(2)
    ]
    assert sorted(itertools.chain(*epochs[0])) == list(range(40))
    assert sorted(itertools.chain(*epochs[1])) == list(range(40))
    assert epochs[0] != epochs[1]


def test_a_corpus_smaller_than_a_batch_is_one_batch() -> None:
    assert sorted(step_indices(5, 7, SETTINGS).tolist()) == [0, 1, 2, 3, 4]


def test_an_image_has_different_captions_as_long_as_there_are_enough(tmp_path: Path) -> None:
    rows = np.arange(6, dtype=np.int32)[:, None] * np.ones((1, 4), np.int32)
    rows.tofile(tmp_path / "tokens")
    tokens = Tokens(tmp_path / "tokens", 4, np.array([0, 1, 6]), "")
    picked = tokens.pick(np.array([0, 1]), 3, np.random.default_rng(0))
    assert picked.shape == (3, 2, 4)
    assert set(picked[:, 0].ravel().tolist()) == {0}
    of_second = picked[:, 1, 0].tolist()
    assert len(set(of_second)) == 3
    assert set(of_second) <= {1, 2, 3, 4, 5}


def test_crops_neither_mirror_nor_recolour() -> None:
    pixels = torch.zeros(64, 20, 20, 3, dtype=torch.uint8)
    pixels[:, :, :10, 0] = 255  # red on the left
    pixels[:, :, 10:, 2] = 255  # blue on the right
    cropped = random_crops(pixels, 0.5, np.random.default_rng(0))
    assert cropped.shape == (64, 3, 20, 20)
    assert cropped.dtype == torch.uint8
    assert (cropped[:, :, :, 0] == torch.tensor([255, 0, 0])[None, :, None]).all()
    assert (cropped[:, :, :, -1] == torch.tensor([0, 0, 255])[None, :, None]).all()


def test_crops_differ_between_groups_and_repeat_with_the_seed() -> None:
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (32, 16, 16, 3), np.uint8))
    pixels[16:] = pixels[:16]
    first = random_crops(pixels, 0.5, np.random.default_rng(0))
    assert not torch.equal(first[:16], first[16:])
    assert torch.equal(first, random_crops(pixels, 0.5, np.random.default_rng(0)))


def test_crop_scale_one_leaves_images_alone() -> None:
    pixels = torch.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3).to(torch.uint8)
    whole = random_crops(pixels, 1.0, np.random.default_rng(0))
    assert torch.equal(whole, pixels.permute(0, 3, 1, 2))
