"""The conversion of every image to 8-bit RGB.

- the first frame, or the largest image of an icon, rotated according to its EXIF orientation;
- transparent pixels over white, as in a browser (a plain ``convert("RGB")`` would show the hidden
  colour, usually black). The colour key of a 16-bit gray PNG is ignored;
- integer gray deeper than 8 bits: ``value * 255 / (2**bits - 1)``, with the bit depth of the file;
- floating-point and 32-bit gray, which have no nominal white: the finite values are scaled from the
  lowest (black) to the highest (white); NaN, and images with a single value, are black;
- CMYK, LAB, YCbCr, palette and gray with Pillow's conversion; embedded colour profiles are not
  applied, as in open_clip.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

_BITS_PER_SAMPLE_TAG: Final = 258


def to_rgb(image: Image.Image) -> Image.Image:
    """Load the first frame of an opened image as RGB, not yet rotated.

    Raises:
        Exception: any error of Pillow for damaged pixels; :mod:`mmindex.media.images` converts it.
    """
    image.load()
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I;16"):
        return _scaled(np.asarray(image), 2 ** _bits(image) - 1).convert("RGB")
    if image.mode == "I" and image.format == "PPM":
        return _scaled(np.asarray(image), 65_535).convert("RGB")  # Pillow scales it to 16 bits
    if image.mode in ("I", "F"):
        return _stretched(np.asarray(image)).convert("RGB")
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(straight.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


def _bits(image: Image.Image) -> int:
    """Return the bits per gray sample in the file; Pillow unpacks 12 bits unscaled."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(image.tag_v2[_BITS_PER_SAMPLE_TAG][0])
    return 16


def _scaled(values: NDArray[np.generic], white: int) -> Image.Image:
    """Scale gray (h, w) integers from 0 to ``white`` to 8 bits."""
    scaled = values.astype(np.float32) * np.float32(255.0 / white) + np.float32(0.5)
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


def _stretched(values: NDArray[np.generic]) -> Image.Image:
    """Scale gray (h, w) values from the lowest to the highest finite value to 8 bits."""
    gray = values.astype(np.float64)
    finite = np.isfinite(gray)
    low, high = (gray[finite].min(), gray[finite].max()) if finite.any() else (0.0, 0.0)
    # Halved first, because the difference of two float64 extremes would overflow.
    span = high / 2 - low / 2
    if span == 0:
        return Image.new("L", (gray.shape[1], gray.shape[0]))
    share = (np.where(finite, gray, np.where(gray == np.inf, high, low)) / 2 - low / 2) / span
    return Image.fromarray(np.rint(share * 255).astype(np.uint8))
