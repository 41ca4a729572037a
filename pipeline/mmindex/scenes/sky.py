"""The sky with its weather, and its light."""

from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from mmindex.scenes.canvas import TWICE, Canvas
from mmindex.scenes.pen import darker
from mmindex.scenes.scene import Lot
from mmindex.scenes.vocabulary import SIZE_PX, Rgb

_SKY_STOPS: Final[dict[tuple[str, str], tuple[tuple[float, Rgb], ...]]] = {
    ("day", "clear"): ((0, (92, 172, 240)), (0.6, (205, 234, 252))),
    ("day", "cloudy"): ((0, (150, 164, 180)), (0.6, (208, 214, 220))),
    ("day", "rain"): ((0, (92, 106, 126)), (0.6, (164, 174, 186))),
    ("day", "rainbow"): ((0, (104, 176, 232)), (0.6, (222, 240, 250))),
    ("day", "snowfall"): ((0, (158, 172, 194)), (0.6, (220, 226, 236))),
    ("sunset", "clear"): ((0, (84, 62, 128)), (0.25, (226, 104, 112)), (0.55, (255, 206, 124))),
    ("night", "clear"): ((0, (10, 14, 44)), (0.6, (52, 62, 116))),
    ("none", "none"): ((0, (76, 190, 214)), (0.5, (34, 128, 186)), (1, (16, 66, 130))),
}
_LIGHT: Final[dict[tuple[str, str], tuple[float, float, float]]] = {
    ("day", "clear"): (1, 1, 1),
    ("day", "cloudy"): (0.88, 0.88, 0.9),
    ("day", "rain"): (0.72, 0.75, 0.8),
    ("day", "rainbow"): (0.98, 1, 0.98),
    ("day", "snowfall"): (0.93, 0.94, 0.97),
    ("sunset", "clear"): (0.95, 0.76, 0.68),
    ("night", "clear"): (0.36, 0.4, 0.6),
    ("none", "none"): (1, 1, 1),
}
_SNOW_LIGHT: Final = {("snow", "sunset"): (0.95, 0.84, 0.88), ("snow", "night"): (0.46, 0.52, 0.7)}
"""Snow stays paler than sand in coloured light."""
_RAINBOW: Final[tuple[Rgb, ...]] = (
    (236, 70, 70),
    (250, 150, 50),
    (252, 224, 80),
    (90, 190, 100),
    (70, 130, 230),
    (130, 80, 190),
)


def light_on(background: str, time: str, weather: str) -> tuple[float, float, float]:
    """Return the shares of red, green and blue that the land reflects."""
    return _SNOW_LIGHT.get((background, time), _LIGHT[time, weather])


def empty_sky(time: str, weather: str) -> Image.Image:
    """Return the whole canvas in the colours of the sky, or of the sea under water."""
    return _gradient(_SKY_STOPS[time, weather])


def fill_sky(canvas: Canvas, time: str, weather: str) -> None:
    """Draw stars, rainbow and clouds on `canvas`."""
    lot = canvas.lot
    if time == "night":
        for _ in range(60):
            size = lot.between(0.4, 1.3)
            canvas.oval(
                lot.between(0, SIZE_PX), lot.between(0, 125), (size, size), (255, 250, 215), False
            )
    elif weather == "rainbow":
        x = lot.between(80, 144)
        for band, colour in enumerate(_RAINBOW):
            radius = 118 - band * 5
            canvas.oval(x, 128, (radius, radius), colour, False)
        inner = _gradient(_SKY_STOPS[time, weather])
        mask = Image.new("L", inner.size, 0)
        ImageDraw.Draw(mask).ellipse(
            [(x - 88) * TWICE, (128 - 88) * TWICE, (x + 88) * TWICE, (128 + 88) * TWICE], 255
        )
        canvas.image.paste(inner, (0, 0), mask)
    grey = {"cloudy": (236, 239, 243), "rain": (120, 130, 146), "snowfall": (232, 236, 243)}
    if weather in grey:
        for _ in range(5):
            _cloud(
                canvas,
                lot.between(0, SIZE_PX),
                lot.between(8, 50),
                lot.between(0.9, 1.4),
                grey[weather],
            )
    elif time == "day" and lot.chance(0.5):
        _cloud(canvas, lot.between(20, 200), lot.between(20, 60), 0.55, (255, 255, 255))
    elif time == "sunset":
        for _ in range(3):
            x, y = lot.between(0, SIZE_PX), lot.between(20, 90)
            canvas.oval(x, y, (lot.between(30, 60), 2.2), (255, 176, 140), False)


def _cloud(canvas: Canvas, x: float, y: float, size: float, fill: Rgb) -> None:
    shade = darker(fill, 0.09)
    puffs = ((-24, 4, 15), (-8, -6, 19), (12, -3, 17), (28, 5, 13))
    for dx, dy, radius in puffs:
        canvas.oval(
            x + dx * size, y + (dy + 3) * size, (radius * size, radius * size * 0.8), shade, False
        )
    for dx, dy, radius in puffs:
        canvas.oval(
            x + dx * size, y + dy * size, (radius * size, radius * size * 0.78), fill, False
        )


def _gradient(stops: tuple[tuple[float, Rgb], ...]) -> Image.Image:
    edge = SIZE_PX * TWICE
    at = np.arange(edge) / edge
    places = [place for place, _ in stops]
    bands = [np.interp(at, places, [colour[band] for _, colour in stops]) for band in range(3)]
    column = np.stack(bands, axis=1).round().astype(np.uint8)[:, None, :]
    return Image.fromarray(column).resize((edge, edge), Image.Resampling.NEAREST)


@lru_cache(maxsize=12)
def falling(weather: str, variant: int) -> Image.Image | None:
    """Return rain or snow in front of everything (L, opacity of white), or None without either."""
    if weather not in ("rain", "snowfall"):
        return None
    lot = Lot("falling", weather, variant)
    edge = SIZE_PX * TWICE
    veil = Image.new("L", (edge, edge), 0)
    draw = ImageDraw.Draw(veil)
    for _ in range(95 if weather == "rain" else 110):
        x, y = lot.between(-20, edge), lot.between(-20, edge)
        size = lot.between(2.0, 5.6)
        if weather == "rain":
            draw.line([(x, y), (x - size * 1.6, y + size * 6)], 150, 3)
        else:
            draw.ellipse((x - size, y - size, x + size, y + size), 235)
    return veil.reduce(TWICE)
