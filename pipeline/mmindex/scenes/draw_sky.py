"""Things in the sky."""

from collections.abc import Callable
from math import cos, pi, sin
from typing import Final

from mmindex.scenes.pen import INK, Paint, Pen, Point, lighter


def turned(radius: float, angle: float, centre: Point = (50, 50)) -> Point:
    """Return the point at `radius` and `angle` (in full turns, clockwise from the right)."""
    return centre[0] + radius * cos(2 * pi * angle), centre[1] + radius * sin(2 * pi * angle)


def sun(pen: Pen, paint: Paint) -> None:
    """Draw a disc with twelve rays."""
    for ray in range(12):
        angle = ray / 12
        pen.poly(
            [turned(34, angle - 0.024), turned(48, angle), turned(34, angle + 0.024)], paint.main
        )
    pen.dot(50, 50, 30, paint.main)
    pen.dot(47, 46, 22, lighter(paint.main, 0.22))


def moon(pen: Pen, paint: Paint) -> None:
    """Draw a crescent."""
    outer = [turned(46, 0.16 + 0.68 * step / 40, (56, 50)) for step in range(41)]
    inner = [turned(36, 0.80 - 0.60 * step / 40, (68, 50)) for step in range(41)]
    pen.poly(outer + inner, paint.main)
    pen.dot(24, 38, 4, paint.dark)
    pen.dot(21, 56, 5, paint.dark)
    pen.dot(33, 73, 4, paint.dark)


def bird(pen: Pen, paint: Paint) -> None:
    """Draw a bird flying to the right, wing up."""
    pen.poly([(22, 52), (1, 40), (3, 54), (1, 64)], paint.dark)
    pen.poly([(56, 56), (34, 14), (62, 22), (74, 52)], paint.dark)
    pen.oval(14, 38, 80, 74, paint.main)
    pen.oval(28, 54, 70, 74, paint.light)
    pen.dot(78, 44, 15, paint.main)
    pen.poly([(90, 39), (100, 45), (90, 50)], (250, 170, 30))
    pen.poly([(62, 56), (22, 15), (52, 20), (68, 50)], paint.light)
    pen.poly([(58, 58), (20, 16), (36, 58)], paint.dark)
    pen.dot(82, 41, 3.4, paint.eye)


def kite(pen: Pen, paint: Paint) -> None:
    """Draw a diamond in four fields with a tail."""
    pen.line([(50, 62), (56, 72), (46, 82), (54, 97)], 2.2, INK)
    for x, y in ((55, 73), (47, 83), (53, 94)):
        pen.poly([(x - 8, y - 4), (x + 8, y + 4), (x + 8, y - 4), (x - 8, y + 4)], paint.dark)
    pen.poly([(50, 1), (84, 30), (50, 66), (16, 30)], paint.main)
    pen.poly([(50, 1), (84, 30), (50, 30)], paint.light)
    pen.poly([(50, 66), (16, 30), (50, 30)], paint.dark)
    pen.line([(50, 2), (50, 65)], 1.8, INK)
    pen.line([(17, 30), (83, 30)], 1.8, INK)


def balloon(pen: Pen, paint: Paint) -> None:
    """Draw a hot air balloon with gores and a basket."""
    pen.line([(30, 56), (42, 84)], 1.8, INK)
    pen.line([(70, 56), (58, 84)], 1.8, INK)
    pen.poly([(20, 52), (80, 52), (60, 76), (40, 76)], paint.main)
    pen.oval(14, 1, 86, 68, paint.main)
    pen.poly([(38, 60), (62, 60), (56, 76), (44, 76)], paint.light)
    pen.oval(34, 1, 66, 68, paint.light)
    pen.oval(44, 1, 56, 68, paint.dark)
    pen.poly([(46, 60), (54, 60), (52, 76), (48, 76)], paint.dark)
    pen.box(39, 83, 61, 99, (150, 96, 50), 3)
    pen.box(39, 83, 61, 88, (190, 132, 76), 2)


def plane(pen: Pen, paint: Paint) -> None:
    """Draw an airliner flying to the right."""
    pen.poly([(8, 48), (2, 24), (14, 24), (28, 44)], paint.dark)
    pen.poly([(46, 46), (34, 24), (44, 24), (66, 44)], paint.dark)
    pen.oval(60, 38, 99, 64, paint.main)
    pen.box(18, 38, 82, 64, paint.main, 8)
    pen.poly([(4, 44), (26, 38), (26, 62), (20, 60)], paint.main)
    pen.poly([(22, 57), (92, 57), (80, 64), (26, 64)], paint.light)
    for x in range(28, 78, 10):
        pen.dot(x, 47, 3.2, (225, 245, 255))
    pen.poly([(83, 42), (92, 44), (95, 49), (84, 49)], (190, 228, 250))
    pen.poly([(44, 56), (62, 56), (40, 78), (28, 78)], paint.dark)


def butterfly(pen: Pen, paint: Paint) -> None:
    """Draw a butterfly from above, wings spread."""
    for side in (-1, 1):
        pen.poly(_mirrored([(2, 46), (14, 12), (40, 8), (47, 24), (36, 52)], side), paint.main)
        pen.oval(*_span(50 + side * 28, 28, 20, 20), paint.main)
        pen.oval(*_span(50 + side * 22, 68, 18, 20), paint.dark)
        pen.oval(*_span(50 + side * 30, 28, 10, 10), paint.light)
        pen.oval(*_span(50 + side * 22, 70, 8, 9), paint.light)
        pen.line([(50, 28), (50 + side * 12, 9)], 2.2, INK)
        pen.dot(50 + side * 13, 9, 3, INK)
    pen.oval(45, 22, 55, 84, INK)


def _span(x: float, y: float, wide: float, tall: float) -> tuple[float, float, float, float]:
    return x - wide, y - tall, x + wide, y + tall


def _mirrored(points: list[Point], side: int) -> list[Point]:
    return [(50 + side * x, y) for x, y in points]


PAINTERS: Final[dict[str, Callable[[Pen, Paint], None]]] = {
    "sun": sun,
    "moon": moon,
    "bird": bird,
    "kite": kite,
    "balloon": balloon,
    "plane": plane,
    "butterfly": butterfly,
}
