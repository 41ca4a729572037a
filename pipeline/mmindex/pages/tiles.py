"""Many small thumbnails in a few large JPEG files, for a script that draws them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image

from mmindex.media.images import to_jpeg
from mmindex.pages.page import thumbnail

MOST: Final = 2_048
"""The largest number of tiles on a page: about 8 MB."""
_COLUMNS: Final = 16
# Few images can be sharper, with about the same number of bytes.
_FEW: Final = 512
_LARGE, _SMALL = 192, 112


@dataclass(frozen=True, slots=True)
class Tiles:
    """Thumbnails on square sheets of ``columns`` times ``columns`` cells, row by row.

    Attributes:
        sheets: ``data:`` URLs.
        places: for each tile, the position of its image in the list of uris.
        sizes: for each tile, the width and height of its image.
        columns: the number of cells in a row.
        pixels: the width and height of a cell.
    """

    sheets: tuple[str, ...]
    places: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    columns: int
    pixels: int


def draw_tiles(uris: Sequence[str], order: Sequence[int]) -> Tiles:
    """Draw thumbnails; images that cannot be shown have none.

    Args:
        uris: the locations of all images.
        order: positions of the images to draw, each once, the most important first. At most
            :data:`MOST` are drawn.
    """
    wanted = order[:MOST]
    pixels = _LARGE if len(wanted) <= _FEW else _SMALL
    sheets: list[str] = []
    places: list[int] = []
    sizes: list[tuple[int, int]] = []
    sheet = _blank(pixels)
    for place in wanted:
        image = thumbnail(uris[place], pixels)
        if isinstance(image, str):
            continue
        row, column = divmod(len(places) % _COLUMNS**2, _COLUMNS)
        sheet.paste(image, (column * pixels, row * pixels))
        places.append(place)
        sizes.append(image.size)
        if len(places) % _COLUMNS**2 == 0:
            sheets.append(_address(sheet))
            sheet = _blank(pixels)
    if rest := len(places) % _COLUMNS**2:
        rows = -(-rest // _COLUMNS)
        sheets.append(_address(sheet.crop((0, 0, sheet.width, rows * pixels))))
    return Tiles(tuple(sheets), tuple(places), tuple(sizes), _COLUMNS, pixels)


def _blank(pixels: int) -> Image.Image:
    return Image.new("RGB", (_COLUMNS * pixels, _COLUMNS * pixels))


def _address(sheet: Image.Image) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(to_jpeg(sheet)).decode('ascii')}"
