"""A canvas for landscapes, lit by the time of day."""

from math import cos, pi, sin
from typing import Final

from PIL import Image, ImageDraw

from mmindex.scenes.pen import Point, lighter
from mmindex.scenes.scene import Lot
from mmindex.scenes.vocabulary import SIZE_PX, Rgb

TWICE: Final = 2  # drawn at twice the size: backgrounds have few hard edges


class Canvas:
    """An image with coordinates of the finished size; time and weather tint the land."""

    __slots__ = ("_draw", "_light", "image", "lot")

    def __init__(self, image: Image.Image, light: tuple[float, float, float], lot: Lot) -> None:
        self.image = image
        self.lot = lot
        self._draw = ImageDraw.Draw(image)
        self._light = light

    def lit(self, colour: Rgb) -> Rgb:
        """Return `colour` as it appears at this time of day."""
        r, g, b = (round(value * share) for value, share in zip(colour, self._light, strict=True))
        return r, g, b

    def poly(self, points: list[Point], fill: Rgb, lit: bool = True) -> None:
        """Draw a filled polygon."""
        scaled = [(x * TWICE, y * TWICE) for x, y in points]
        self._draw.polygon(scaled, self.lit(fill) if lit else fill)

    def oval(self, x: float, y: float, size: Point, fill: Rgb, lit: bool = True) -> None:
        """Draw a filled ellipse around (x, y) with half axes `size`."""
        wide, tall = size
        corners = [
            (x - wide) * TWICE,
            (y - tall) * TWICE,
            (x + wide) * TWICE,
            (y + tall) * TWICE,
        ]
        self._draw.ellipse(corners, self.lit(fill) if lit else fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb, lit: bool = True) -> None:
        """Draw a filled rectangle."""
        corners = [x0 * TWICE, y0 * TWICE, x1 * TWICE, y1 * TWICE]
        self._draw.rectangle(corners, self.lit(fill) if lit else fill)

    def line(self, points: list[Point], width: float, fill: Rgb) -> None:
        """Draw an open line."""
        scaled = [(x * TWICE, y * TWICE) for x, y in points]
        self._draw.line(scaled, self.lit(fill), round(width * TWICE), "curve")

    def hills(self, y: float, height: float, waves: float, fill: Rgb) -> None:
        """Draw land up to a wavy horizon around `y`, paler at its edge."""
        phase = self.lot.between(0, 1)
        rim = [
            (
                x,
                y
                - height
                * (sin(2 * pi * (x / SIZE_PX * waves + phase)) + 0.4 * cos(x / 17 + 6 * phase)),
            )
            for x in range(-4, SIZE_PX + 5, 4)
        ]
        self.poly([*rim, (SIZE_PX + 4, 230), (-4, 230)], lighter(fill, 0.25))
        self.poly([*((x, v + 3) for x, v in rim), (SIZE_PX + 4, 232), (-4, 232)], fill)
