"""Draw on a square of 100 x 100 units, at a larger size that is reduced afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw

from mmindex.scenes.vocabulary import COLOURS, Rgb

OVERSIZE: Final = 4  # samples per pixel and axis: 16 grey levels on an edge
INK: Final[Rgb] = (44, 38, 52)
Point = tuple[float, float]


def lighter(colour: Rgb, share: float = 0.35) -> Rgb:
    """Return `colour` moved by `share` of the way to white."""
    r, g, b = (round(value + (255 - value) * share) for value in colour)
    return r, g, b


def darker(colour: Rgb, share: float = 0.25) -> Rgb:
    """Return `colour` moved by `share` of the way to black."""
    r, g, b = (round(value * (1 - share)) for value in colour)
    return r, g, b


@dataclass(frozen=True, slots=True)
class Paint:
    """A thing's colour and its shades; `eye` and `line` contrast with it."""

    main: Rgb
    light: Rgb
    dark: Rgb
    eye: Rgb
    line: Rgb


def paint_of(colour: str) -> Paint:
    """Return the paint for a colour's name."""
    main = COLOURS[colour]
    if colour == "black":
        return Paint(main, (92, 92, 102), (26, 26, 30), (250, 250, 250), (120, 120, 130))
    if colour == "white":
        return Paint(main, (255, 255, 255), (206, 210, 220), INK, (170, 174, 188))
    return Paint(main, lighter(main), darker(main), INK, darker(main, 0.45))


class Pen:
    """Draws shapes in hundredths of the square's edge; (0, 0) is its upper left corner."""

    __slots__ = ("_draw", "_unit", "image")

    def __init__(self, edge_px: int) -> None:
        self.image = Image.new("RGBA", (edge_px, edge_px), (*INK, 0))
        self._draw = ImageDraw.Draw(self.image)
        self._unit = edge_px / 100

    def oval(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb) -> None:
        """Draw a filled ellipse in a box."""
        u = self._unit
        self._draw.ellipse((x0 * u, y0 * u, x1 * u, y1 * u), fill)

    def dot(self, x: float, y: float, radius: float, fill: Rgb) -> None:
        """Draw a filled circle."""
        self.oval(x - radius, y - radius, x + radius, y + radius, fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb, radius: float = 0) -> None:
        """Draw a filled rectangle, with rounded corners if `radius` is not 0."""
        u = self._unit
        corners = (x0 * u, y0 * u, x1 * u, y1 * u)
        if radius:
            self._draw.rounded_rectangle(corners, radius * u, fill)
        else:
            self._draw.rectangle(corners, fill)

    def poly(self, points: Sequence[Point], fill: Rgb) -> None:
        """Draw a filled polygon."""
        u = self._unit
        self._draw.polygon([(x * u, y * u) for x, y in points], fill)

    def line(self, points: Sequence[Point], width: float, fill: Rgb) -> None:
        """Draw a line with round joints and ends."""
        u = self._unit
        self._draw.line(
            [(x * u, y * u) for x, y in points], fill, max(1, round(width * u)), "curve"
        )
        for x, y in (points[0], points[-1]):
            self.dot(x, y, width / 2, fill)

    def ring(self, x: float, y: float, radius: float, width: float, fill: Rgb) -> None:
        """Draw a circle's outline, `radius` to its outer edge."""
        u = self._unit
        corners = ((x - radius) * u, (y - radius) * u, (x + radius) * u, (y + radius) * u)
        self._draw.ellipse(corners, None, fill, max(1, round(width * u)))

    def pie(
        self, box: tuple[float, float, float, float], start: float, end: float, fill: Rgb
    ) -> None:
        """Draw a filled sector of the ellipse in `box`, degrees clockwise from the right."""
        u = self._unit
        x0, y0, x1, y1 = box
        self._draw.pieslice((x0 * u, y0 * u, x1 * u, y1 * u), start, end, fill)

    def arc(
        self,
        box: tuple[float, float, float, float],
        span: tuple[float, float],
        width: float,
        fill: Rgb,
    ) -> None:
        """Draw part of the outline of an ellipse in `box`; `span` is in degrees as in `pie`."""
        u = self._unit
        x0, y0, x1, y1 = box
        corners = (x0 * u, y0 * u, x1 * u, y1 * u)
        self._draw.arc(corners, span[0], span[1], fill, max(1, round(width * u)))
