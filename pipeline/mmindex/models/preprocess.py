"""Convert an image to the input pixels of a model.

The same steps as open_clip's evaluation transform (``open_clip.transform.image_transform``, which
builds on torchvision), with PIL and numpy only: decode workers do not import torch.
The result equals the image of that transform before normalisation, bit for bit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmindex.core.errors import DataError

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "longest", "squash"]
Pixels = NDArray[np.uint8]

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """The preprocessing of a model.

    Attributes:
        height, width: of the model input, in pixels.
        resize_mode: ``shortest`` fits the shorter side and crops the longer one, ``longest`` fits
            the longer side and pads the shorter one, ``squash`` ignores the aspect ratio.
        interpolation: resampling filter.
        fill: gray value of the padding, 0 to 255.
        mean, std: of each channel, on a scale of 0 to 1; applied by the encoder, on its device.
    """

    height: int
    width: int
    resize_mode: ResizeMode
    interpolation: Interpolation
    fill: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for hashing."""
        return asdict(self)


# The values of OpenAI's CLIP, which are open_clip's default.
_DEFAULTS: dict[str, Any] = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}


def spec_from_config(image_size: object, overrides: dict[str, Any]) -> PreprocessSpec:
    """Read open_clip's ``preprocess_cfg`` (missing or null keys take open_clip's defaults).

    Args:
        image_size: the input size of the vision tower: one number, or height and width.
        overrides: ``mean``, ``std``, ``interpolation``, ``resize_mode``, ``fill_color``.

    Raises:
        DataError: open_clip does not know a value.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    values = {**_DEFAULTS, **given}
    # In open_clip, "random" means bicubic except in training.
    if values["interpolation"] == "random":
        values["interpolation"] = "bicubic"
    if values["interpolation"] not in get_args(Interpolation):
        raise DataError(f"preprocess_cfg: interpolation {values['interpolation']!r} is not known")
    if values["resize_mode"] not in get_args(ResizeMode):
        raise DataError(f"preprocess_cfg: resize_mode {values['resize_mode']!r} is not known")
    height, width = _pair(image_size)
    return PreprocessSpec(
        height=height,
        width=width,
        resize_mode=values["resize_mode"],
        interpolation=values["interpolation"],
        fill=int(values["fill_color"]),
        mean=_channels("mean", values["mean"]),
        std=_channels("std", values["std"]),
    )


def _pair(image_size: object) -> tuple[int, int]:
    if isinstance(image_size, int) and image_size > 0:
        return image_size, image_size
    match image_size:
        case [int(height), int(width)] if height > 0 and width > 0:
            return height, width
    raise DataError(f"image_size {image_size!r} is not a number of pixels or a pair of numbers")


def _channels(name: str, value: object) -> tuple[float, float, float]:
    if isinstance(value, int | float):
        return float(value), float(value), float(value)
    match value:
        case [float() | int() as red, float() | int() as green, float() | int() as blue]:
            return float(red), float(green), float(blue)
    raise DataError(f"preprocess_cfg: {name} {value!r} is not three numbers")


def to_pixels(image: Image.Image, spec: PreprocessSpec) -> Pixels:
    """Resize and crop an RGB image: uint8 (height, width, 3), C order, not yet normalised."""
    if spec.resize_mode == "squash":
        fitted = _resize(image, spec.height, spec.width, spec)
    elif spec.resize_mode == "longest":
        fitted = _pad(_fit(image, spec, max), spec)
    else:
        fitted = _fit_shortest(image, spec)
    return np.array(_crop(fitted, spec), dtype=np.uint8)


def _resize(image: Image.Image, height: int, width: int, spec: PreprocessSpec) -> Image.Image:
    # A side has at least one pixel; torchvision would fail.
    height, width = max(height, 1), max(width, 1)
    if image.size == (width, height):
        return image
    return image.resize((width, height), _FILTERS[spec.interpolation])


def _fit_shortest(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    if spec.height != spec.width:
        # open_clip ignores the model's filter here, and weights were trained with this behaviour.
        return _fit(image, _with_bicubic(spec), min)
    # torchvision's Resize(int) truncates the longer side; timm's rule in _fit rounds it.
    width, height = image.size
    short = spec.height
    if width <= height:
        return _resize(image, int(short * height / width), short, spec)
    return _resize(image, short, int(short * width / height), spec)


def _with_bicubic(spec: PreprocessSpec) -> PreprocessSpec:
    values = spec.to_json()
    values["interpolation"] = "bicubic"
    return PreprocessSpec(**values)


def _fit(image: Image.Image, spec: PreprocessSpec, choose: Any) -> Image.Image:
    """Resize with the same aspect ratio; ``choose`` is max (fit inside) or min (cover)."""
    width, height = image.size
    ratio = choose(height / spec.height, width / spec.width)
    return _resize(image, round(height / ratio), round(width / ratio), spec)


def _pad(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    width, height = image.size
    if width >= spec.width and height >= spec.height:
        return image
    canvas = Image.new("RGB", (max(width, spec.width), max(height, spec.height)), (spec.fill,) * 3)
    canvas.paste(image, (max(spec.width - width, 0) // 2, max(spec.height - height, 0) // 2))
    return canvas


def _crop(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    width, height = image.size
    if (width, height) == (spec.width, spec.height):
        return image
    # round() to even, as in torchvision, because half a pixel changes the vectors.
    top = round((height - spec.height) / 2.0)
    left = round((width - spec.width) / 2.0)
    return image.crop((left, top, left + spec.width, top + spec.height))
