"""Backgrounds: sky, weather and land, drawn once for each of their variants."""

from collections.abc import Callable
from functools import lru_cache
from math import sin
from typing import Final

from PIL import Image, ImageDraw, ImageFilter

from mmindex.scenes.canvas import TWICE, Canvas
from mmindex.scenes.pen import Point, darker
from mmindex.scenes.scene import Lot
from mmindex.scenes.sky import empty_sky, fill_sky, light_on
from mmindex.scenes.vocabulary import SIZE_PX


@lru_cache(maxsize=400)  # 8 places x 6 skies x 6 variants and 6 under water: 294 of 150 KB each
def backdrop(background: str, time: str, weather: str, variant: int) -> Image.Image:
    """Return the image without its things, `SIZE_PX` square, RGB; shared, so do not modify it."""
    sky = empty_sky(time, weather)
    lot = Lot("backdrop", background, time, weather, variant)
    canvas = Canvas(sky, light_on(background, time, weather), lot)
    if background != "underwater":
        fill_sky(canvas, time, weather)
    _LANDS[background](canvas)
    if variant % 2:
        return canvas.image.reduce(TWICE).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return canvas.image.reduce(TWICE)


def _meadow(canvas: Canvas) -> None:
    canvas.hills(124, 8, 1.1, (142, 200, 112))
    canvas.hills(140, 5, 0.8, (118, 186, 90))
    canvas.hills(172, 5, 0.7, (98, 170, 76))
    for _ in range(70):
        x, y = canvas.lot.between(0, SIZE_PX), canvas.lot.between(150, 222)
        canvas.line([(x - 2, y - 4), (x, y), (x + 2, y - 4)], 0.8, (72, 142, 60))


def _water(canvas: Canvas, top: float, bottom: float) -> None:
    steps = 14
    for step in range(steps):
        y = top + (bottom - top) * step / steps
        share = step / (steps - 1)
        colour = (round(92 - 58 * share), round(178 - 66 * share), round(216 - 36 * share))
        canvas.box(0, y, SIZE_PX, bottom, colour)
    for _ in range(round((bottom - top) / 3)):
        x, y = canvas.lot.between(-10, SIZE_PX), canvas.lot.between(top + 4, bottom - 4)
        size = 4 + 9 * (y - top) / 120
        canvas.line([(x, y), (x + size, y - 2), (x + 2 * size, y)], 1, (188, 226, 240))


def _sea(canvas: Canvas) -> None:
    _water(canvas, 112, 226)


def _beach(canvas: Canvas) -> None:
    _water(canvas, 106, 176)
    phase = canvas.lot.between(0, 6)
    shore = [(x, 158 + 4 * sin(x / 26 + phase)) for x in range(-4, SIZE_PX + 5, 4)]
    for drop, colour in ((0, (250, 252, 252)), (5, (214, 190, 140)), (10, (240, 218, 166))):
        canvas.poly([*((x, y + drop) for x, y in shore), (228, 230), (-4, 230)], colour)
    for _ in range(70):
        x, y = canvas.lot.between(0, SIZE_PX), canvas.lot.between(176, 222)
        canvas.oval(x, y, (1, 0.7), (212, 184, 132))


def _snow(canvas: Canvas) -> None:
    canvas.hills(122, 9, 1.2, (206, 220, 238))
    canvas.hills(140, 6, 0.8, (226, 235, 246))
    canvas.hills(174, 5, 0.7, (240, 245, 252))
    for _ in range(30):
        x, y = canvas.lot.between(0, SIZE_PX), canvas.lot.between(150, 222)
        canvas.oval(x, y, (canvas.lot.between(3, 9), 1), (216, 226, 241))


def _desert(canvas: Canvas) -> None:
    canvas.hills(122, 10, 1.3, (226, 182, 116))
    canvas.hills(142, 7, 0.8, (236, 198, 130))
    canvas.hills(178, 6, 0.7, (244, 212, 148))
    for _ in range(26):
        x, y = canvas.lot.between(-10, SIZE_PX), canvas.lot.between(152, 222)
        canvas.line([(x, y), (x + 9, y - 2), (x + 20, y)], 1, (222, 178, 112))


def _city(canvas: Canvas) -> None:
    lot = canvas.lot
    x = -6.0
    while x < SIZE_PX:
        wide, top = lot.between(18, 34), lot.between(36, 96)
        tone = round(lot.between(104, 158))
        canvas.box(x, top, x + wide, 150, (tone, tone + 6, tone + 18))
        night = canvas.lit((255, 255, 255))[0] < 120
        for row in range(round(top) + 6, 136, 10):
            for column in range(round(x) + 4, round(x + wide) - 5, 8):
                if lot.chance(0.7):
                    pane = (255, 226, 130) if night else (214, 228, 240)
                    canvas.box(column, row, column + 4, row + 5, pane, lit=not night)
        x += wide + lot.between(0, 4)
    canvas.box(0, 138, SIZE_PX, 168, (190, 188, 184))
    canvas.box(0, 166, SIZE_PX, 170, (150, 148, 146))
    canvas.box(0, 170, SIZE_PX, 226, (98, 100, 108))
    for dash in range(-10, SIZE_PX, 44):
        canvas.box(dash, 193, dash + 24, 196, (236, 232, 214))


def _forest(canvas: Canvas) -> None:
    lot = canvas.lot
    canvas.box(0, 112, SIZE_PX, 226, (44, 92, 62))
    for tone, bottom, height in (((66, 122, 92), 128, 84), ((40, 92, 62), 138, 66)):
        for step in range(-1, 12):
            x, tall = step * 21 + lot.between(-6, 6), height * lot.between(0.75, 1.1)
            for part in range(3):
                top, wide = bottom - tall + part * tall * 0.24, 8 + part * 5
                canvas.poly(
                    [(x, top), (x + wide, top + tall * 0.42), (x - wide, top + tall * 0.42)], tone
                )
    canvas.hills(140, 3, 1.2, (84, 128, 66))
    canvas.hills(176, 4, 0.8, (100, 142, 72))
    for _ in range(50):
        x, y = lot.between(0, SIZE_PX), lot.between(150, 222)
        canvas.oval(x, y, (2.4, 1.2), (132, 112, 62) if lot.chance(0.5) else (66, 108, 52))


def _mountains(canvas: Canvas) -> None:
    lot = canvas.lot
    for tone, low, high in (((150, 164, 190), 34, 62), ((118, 130, 156), 58, 88)):
        for step in range(4):
            x, top = 10 + step * 66 + lot.between(-18, 18), lot.between(low, high)
            half = (140 - top) * lot.between(0.6, 0.8)
            canvas.poly([(x, top), (x + half, 142), (x - half, 142)], tone)
            canvas.poly([(x, top), (x + half, 142), (x + half * 0.3, 142)], darker(tone, 0.14))
            cap = (140 - top) * 0.26
            wide = half * 0.26
            points = [(x, top), (x + wide, top + cap), (x + wide * 0.3, top + cap * 0.75)]
            canvas.poly(
                [*points, (x - wide * 0.2, top + cap * 1.1), (x - wide, top + cap)], (248, 250, 253)
            )
    canvas.hills(142, 3, 0.9, (128, 168, 104))
    canvas.hills(176, 4, 0.8, (110, 154, 88))
    for _ in range(22):
        x, y = lot.between(0, SIZE_PX), lot.between(152, 222)
        canvas.oval(x, y, (lot.between(1.5, 4), 1.6), (158, 160, 156))


def _underwater(canvas: Canvas) -> None:
    lot = canvas.lot
    rays = Image.new("L", canvas.image.size, 0)
    draw = ImageDraw.Draw(rays)
    for _ in range(5):
        x, lean = lot.between(-40, SIZE_PX) * TWICE, lot.between(20, 60) * TWICE
        draw.polygon([(x, 0), (x + 26, 0), (x + lean + 90, 400), (x + lean, 400)], 44)
    rays = rays.filter(ImageFilter.BoxBlur(8))
    canvas.image.paste((225, 250, 255), (0, 0), rays)
    canvas.hills(192, 4, 1.2, (206, 190, 140))
    canvas.hills(206, 3, 0.8, (226, 208, 156))
    for _ in range(7):
        x, top = lot.between(0, SIZE_PX), lot.between(158, 186)
        wave: list[Point] = [(x + 3 * sin(y / 7), y) for y in range(round(top), 206, 3)]
        canvas.line(wave, 3, (30, 122, 100))
    for _ in range(22):
        x, y, size = lot.between(0, SIZE_PX), lot.between(0, 190), lot.between(0.8, 2.6)
        canvas.oval(x, y, (size, size), (176, 226, 240))


_LANDS: Final[dict[str, Callable[[Canvas], None]]] = {
    "meadow": _meadow,
    "sea": _sea,
    "beach": _beach,
    "snow": _snow,
    "desert": _desert,
    "city": _city,
    "forest": _forest,
    "mountains": _mountains,
    "underwater": _underwater,
}
