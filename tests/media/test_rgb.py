"""The conversion to 8-bit RGB, compared with values computed by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mmindex.core.config import LimitsConfig
from mmindex.media.images import ImageLimits, decode

LIMITS = ImageLimits.of(LimitsConfig())


def through(image: Image.Image, kind: str, **options: object) -> NDArray[np.uint8]:
    """Return the pixels (h, w, 3) after saving and decoding."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return np.asarray(decode(buffer.getvalue(), LIMITS))


def gray_of(pixels: NDArray[np.uint8]) -> list[int]:
    assert (pixels == pixels[..., :1]).all()
    return [int(value) for value in pixels[0, :, 0]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 128, 129, 257, 32_896, 65_407, 65_535]], dtype=np.uint16)
    assert gray_of(through(Image.fromarray(values), kind)) == [0, 0, 1, 1, 128, 255, 255]


def test_a_16_bit_graymap_and_a_12_bit_tiff_use_their_own_white() -> None:
    graymap = b"P5\n3 1\n65535\n" + np.array([0, 32_896, 65_535], dtype=">u2").tobytes()
    assert gray_of(np.asarray(decode(graymap, LIMITS))) == [0, 128, 255]
    # Two 12-bit samples in three bytes: 0 and 4095.
    data = tiff_of_12_bits(b"\x00\x0f\xff")
    assert gray_of(np.asarray(decode(data, LIMITS))) == [0, 255]


def tiff_of_12_bits(pixels: bytes) -> bytes:
    """An uncompressed little-endian TIFF with 2x1 samples of 12 bits."""
    tags = [
        (256, 2),
        (257, 1),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, 3),
    ]
    entries = b"".join(
        np.array([tag, 3], "<u2").tobytes() + np.array([1, value], "<u4").tobytes()
        for tag, value in tags
    )
    directory = np.array([len(tags)], "<u2").tobytes() + entries + bytes(4)
    return b"II*\0" + np.array([12], "<u4").tobytes() + pixels + b"\0" + directory


def test_floating_point_gray_is_scaled_from_lowest_to_highest() -> None:
    values = np.array([[-3.0, 0.0, 7.0, np.nan, np.inf, -np.inf]], dtype=np.float32)
    assert gray_of(through(Image.fromarray(values), "TIFF")) == [0, 76, 255, 0, 255, 0]


@pytest.mark.parametrize("value", [0.0, 5.5, np.nan, np.inf])
def test_floating_point_gray_without_a_span_is_black(value: float) -> None:
    values = np.full((1, 3), value, dtype=np.float32)
    assert gray_of(through(Image.fromarray(values), "TIFF")) == [0, 0, 0]


def test_extremes_of_floating_point_do_not_overflow() -> None:
    least, greatest = np.finfo(np.float32).min, np.finfo(np.float32).max
    values = np.array([[least, 0.0, greatest]], dtype=np.float32)
    assert gray_of(through(Image.fromarray(values), "TIFF")) == [0, 128, 255]


def test_32_bit_integers_are_stretched_too() -> None:
    values = np.array([[-1_000_000, 0, 1_000_000]], dtype=np.int32)
    assert gray_of(through(Image.fromarray(values), "TIFF")) == [0, 128, 255]


def test_transparent_pixels_are_drawn_over_white() -> None:
    """Transparent red is not visible; half-transparent black becomes medium gray."""
    image = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(255, 0, 0, 0), (0, 0, 0, 128), (0, 0, 255, 255)]):
        image.putpixel((x, 0), pixel)
    pixels = through(image, "PNG")[0].tolist()
    assert pixels == [[255, 255, 255], [127, 127, 127], [0, 0, 255]]


def test_gray_with_alpha_is_drawn_over_white() -> None:
    image = Image.new("LA", (2, 1))
    image.putpixel((0, 0), (0, 0))
    image.putpixel((1, 0), (10, 255))
    assert gray_of(through(image, "PNG")) == [255, 10]


def test_a_palette_with_a_transparent_colour_is_drawn_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        assert through(image, kind, transparency=0)[0].tolist() == [[255, 255, 255], [0, 0, 200]]


def test_a_colour_key_is_drawn_over_white() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    assert through(image, "PNG", transparency=(1, 2, 3))[0].tolist() == [[255] * 3, [9] * 3]


def test_the_first_frame_of_an_animation_is_the_image() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        pixels = through(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert pixels[0, 0].tolist() == [255, 0, 0], kind


def test_cmyk_lab_and_bilevel_images_keep_their_colours() -> None:
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    cmyk = through(red.convert("CMYK"), "TIFF")
    assert cmyk[0, 0].tolist() == [255, 0, 0]
    lab = through(red.convert("LAB"), "TIFF")
    assert np.abs(lab[0, 0].astype(int) - [255, 0, 0]).max() < 12
    assert gray_of(through(Image.new("1", (2, 1), 1), "PNG")) == [255, 255]
