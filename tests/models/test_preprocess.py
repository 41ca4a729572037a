"""Pixels are those of open_clip's own transform, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmindex.core.errors import DataError
from mmindex.models.preprocess import spec_from_config, to_pixels
from support.images import draw

SIZES = [(640, 480), (481, 640), (224, 224), (225, 224), (17, 301), (500, 333), (1, 200), (50, 50)]


def open_clip_pixels(image: Image.Image, size: Any, config: dict[str, Any]) -> np.ndarray:
    """Return the result of open_clip's evaluation transform, as uint8 before normalisation."""
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    transform = image_transform_v2(PreprocessCfg(size=size, **config, **plain), is_train=False)
    tensor = transform(image).mul(255).round().to(torch.uint8)
    return tensor.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("target", [224, (160, 224)])
def test_pixels_equal_open_clips_bit_for_bit(target: Any, mode: str, interpolation: str) -> None:
    config = {"resize_mode": mode, "interpolation": interpolation, "fill_color": 7}
    spec = spec_from_config(target, config)
    for number, size in enumerate(SIZES):
        if mode == "longest" and size == (1, 200):
            continue  # torchvision refuses a side of 0 pixels; ours keeps 1
        image = draw(number, (max(size[0], 9), max(size[1], 9))).resize(size)
        expected = open_clip_pixels(image, target, config)
        actual = to_pixels(image, spec)
        assert actual.dtype == np.uint8
        assert actual.flags.c_contiguous
        np.testing.assert_array_equal(actual, expected, err_msg=f"{size} {mode}")


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_real_photos_give_open_clips_pixels(real_photos: Path, mode: str) -> None:
    config = {"resize_mode": mode, "interpolation": "bicubic"}
    spec = spec_from_config(224, config)
    for path in sorted((real_photos / "coco_val2017" / "val2017").glob("*.jpg"))[:12]:
        image = Image.open(path).convert("RGB")
        np.testing.assert_array_equal(
            to_pixels(image, spec), open_clip_pixels(image, 224, config), err_msg=str(path)
        )


def test_a_line_of_pixels_becomes_a_square_in_every_mode() -> None:
    for mode in ("shortest", "longest", "squash"):
        spec = spec_from_config(32, {"resize_mode": mode})
        assert to_pixels(Image.new("RGB", (1, 200)), spec).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("size", "config"),
    [
        (224, {"resize_mode": "stretch"}),
        (224, {"interpolation": "nearest"}),
        (224, {"mean": [0.5]}),
        ("224", {}),
        ([224], {}),
    ],
)
def test_an_unknown_preprocessing_is_refused(size: object, config: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        spec_from_config(size, config)
