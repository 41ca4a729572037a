"""Drawn images for tests."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "white", "black")


def draw(number: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Return an image that differs for every number; its background is ``COLOURS[number % 5]``."""
    image = Image.new("RGB", size, COLOURS[number % len(COLOURS)])
    pen = ImageDraw.Draw(image)
    x, y = number * 7 % (size[0] - 8), number * 5 % (size[1] - 8)
    pen.rectangle((x, y, x + 6, y + 6), fill=(number % 256, number // 256 % 256, 128))
    return image


def png(number: int, size: tuple[int, int] = (48, 40)) -> bytes:
    """Return ``draw(number)`` as a PNG file."""
    buffer = io.BytesIO()
    draw(number, size).save(buffer, "PNG")
    return buffer.getvalue()


def write_pngs(folder: Path, count: int, size: tuple[int, int] = (48, 40)) -> list[Path]:
    """Write ``count`` different PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"{number:05d}.png"
        path.write_bytes(png(number, size))
        paths.append(path)
    return paths
