"""``--preview``: images in three protocols, decoded as a terminal does."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from mmindex.core.errors import UsageError
from mmindex_cli import preview


@pytest.fixture
def image() -> Image.Image:
    """An image of four fields in plain colours, whose height is not a multiple of six."""
    pixels = np.zeros((20, 31, 3), np.uint8)
    pixels[:10, :15] = 255, 0, 0
    pixels[:10, 15:] = 0, 255, 0
    pixels[10:, :15] = 0, 0, 255
    return Image.fromarray(pixels)


def same(data: bytes, image: Image.Image) -> bool:
    with Image.open(io.BytesIO(data)) as shown:
        return np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(image))


def test_kitty_gets_a_png_in_chunks(image: Image.Image) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for shown in (image, Image.fromarray(noise)):
        pieces = re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b\\\\", preview.kitty(shown))
        assert [keys.split(",")[-1] for keys, _ in pieces] == [
            *["m=1"] * (len(pieces) - 1),
            "m=0",
        ]
        assert pieces[0][0].startswith("a=T,f=100")
        assert all(len(piece) <= 4096 for _, piece in pieces)
        assert same(base64.b64decode("".join(piece for _, piece in pieces)), shown)


def test_iterm2_gets_a_png(image: Image.Image) -> None:
    found = re.fullmatch("\x1b]1337;File=inline=1:(.*)\x07", preview.iterm2(image))
    assert found is not None
    assert same(base64.b64decode(found[1]), image)


def unsixel(text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Decode sixels as a terminal does."""
    head = re.match('\x1bP0;1q"1;1;(\\d+);(\\d+)', text)
    assert head is not None
    assert text.endswith("\x1b\\")
    width, height = int(head[1]), int(head[2])
    shown = np.zeros((height + 6, width, 3), np.uint8)
    colours: dict[int, list[int]] = {}
    colour = x = y = 0
    for piece in re.findall(r"#\d+(?:;2;\d+;\d+;\d+)?|!\d+[?-~]|[$\-?-~]", text[head.end() : -2]):
        if piece.startswith("#"):
            number, *values = piece[1:].split(";")
            colour = int(number)
            if values:
                colours[colour] = [round(int(one) * 2.55) for one in values[1:]]
        elif piece == "$":
            x = 0
        elif piece == "-":
            x, y = 0, y + 6
        else:
            count = int(piece[1:-1]) if piece.startswith("!") else 1
            for row in range(6):
                if (ord(piece[-1]) - 63) >> row & 1:
                    shown[y + row, x : x + count] = colours[colour]
            x += count
    return shown[:height]


def test_sixels_show_the_image(image: Image.Image) -> None:
    assert np.array_equal(unsixel(preview.sixel(image)), np.asarray(image))


def test_without_a_terminal_there_is_no_preview() -> None:
    with pytest.raises(UsageError, match="--preview needs a terminal"):
        preview.image_drawer()
