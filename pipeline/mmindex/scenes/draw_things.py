"""Plants and man-made things on land."""

from collections.abc import Callable
from math import cos, pi, sin
from typing import Final

from mmindex.scenes.pen import INK, Paint, Pen, darker, lighter

_WOOD: Final = (122, 78, 46)
_GLASS: Final = (190, 228, 250)
_STEM: Final = (50, 130, 60)


def house(pen: Pen, paint: Paint) -> None:
    """Draw walls of the colour, a roof, a door, two windows and a chimney."""
    roof = (120, 62, 48) if paint.main[0] < 200 or paint.main[1] > 130 else (92, 74, 84)
    pen.box(68, 8, 80, 36, (150, 90, 74))
    pen.box(12, 42, 88, 98, paint.main)
    pen.box(12, 90, 88, 98, paint.dark)
    pen.poly([(50, 6), (96, 46), (4, 46)], roof)
    pen.poly([(50, 6), (54, 6), (98, 46), (90, 46)], lighter(roof, 0.2))
    pen.box(42, 62, 59, 98, _WOOD, 2)
    pen.dot(55, 81, 1.8, (250, 214, 90))
    for x in (19, 66):
        pen.box(x, 56, x + 16, 74, (252, 250, 240))
        pen.box(x + 2, 58, x + 14, 72, _GLASS)
        pen.box(x + 7, 57, x + 9, 73, (252, 250, 240))
        pen.box(x + 1, 64, x + 15, 66, (252, 250, 240))


def tree(pen: Pen, paint: Paint) -> None:
    """Draw a round crown of the colour on a trunk."""
    pen.poly([(43, 56), (57, 56), (62, 98), (38, 98)], _WOOD)
    pen.poly([(52, 56), (57, 56), (62, 98), (54, 98)], darker(_WOOD))
    pen.line([(50, 66), (66, 54)], 4, _WOOD)
    for x, y, radius in ((32, 46, 19), (69, 46, 19), (50, 24, 22), (50, 50, 22)):
        pen.dot(x, y, radius, paint.main)
    pen.dot(74, 52, 10, paint.dark)
    pen.dot(58, 60, 10, paint.dark)
    pen.dot(34, 56, 8, paint.dark)
    pen.dot(42, 20, 11, paint.light)
    pen.dot(28, 38, 8, paint.light)
    pen.dot(60, 34, 6, paint.light)


def _wheel(pen: Pen, x: float, y: float, radius: float) -> None:
    pen.dot(x, y, radius, INK)
    pen.dot(x, y, radius * 0.5, (190, 194, 202))


def car(pen: Pen, paint: Paint) -> None:
    """Draw a small car driving to the right."""
    pen.poly([(20, 70), (32, 47), (66, 47), (80, 70)], paint.main)
    pen.poly([(28, 67), (36, 51), (47, 51), (47, 67)], _GLASS)
    pen.poly([(51, 67), (51, 51), (63, 51), (72, 67)], _GLASS)
    pen.box(2, 66, 98, 90, paint.main, 8)
    pen.box(2, 81, 98, 90, paint.dark, 5)
    pen.dot(93, 74, 4, (255, 240, 160))
    pen.box(2, 71, 7, 78, (250, 80, 60), 1)
    pen.box(54, 72, 61, 74, paint.line)
    _wheel(pen, 24, 88, 10.5)
    _wheel(pen, 76, 88, 10.5)


def bus(pen: Pen, paint: Paint) -> None:
    """Draw a long bus with a row of windows."""
    pen.box(1, 42, 99, 91, paint.main, 7)
    pen.box(1, 78, 99, 91, paint.dark, 5)
    pen.box(1, 72, 99, 75, paint.light)
    for x in (6, 22, 38, 54):
        pen.box(x, 49, x + 13, 67, _GLASS, 2)
    pen.box(71, 49, 82, 86, lighter(_GLASS, 0.4), 2)
    pen.box(76, 49, 77.5, 86, paint.line)
    pen.box(86, 49, 98, 68, _GLASS, 3)
    pen.dot(96, 80, 3, (255, 240, 160))
    _wheel(pen, 22, 89, 9.5)
    _wheel(pen, 78, 89, 9.5)


def bicycle(pen: Pen, paint: Paint) -> None:
    """Draw two wheels and a frame of the colour."""
    for x in (23, 77):
        pen.ring(x, 76, 22.5, 4.6, (66, 68, 80))
        pen.ring(x, 76, 18.5, 1.6, (200, 204, 212))
        pen.dot(x, 76, 3.4, INK)
    frame = ([(23, 76), (38, 50), (68, 50), (46, 76), (23, 76)], [(46, 76), (36, 44)])
    for part in (*frame, [(77, 76), (66, 40)]):
        pen.line(part, 6, paint.main)
    pen.line([(66, 40), (66, 34), (76, 33)], 4, INK)
    pen.box(27, 40, 46, 46, INK, 3)
    pen.dot(46, 76, 5.5, paint.dark)


def flower(pen: Pen, paint: Paint) -> None:
    """Draw eight petals on a stem with two leaves."""
    pen.line([(50, 44), (52, 72), (50, 98)], 5, _STEM)
    pen.poly([(51, 84), (76, 62), (80, 74), (66, 88)], _STEM)
    pen.poly([(51, 90), (26, 70), (22, 82), (38, 94)], lighter(_STEM, 0.15))
    for petal in range(8):
        angle = 2 * pi * petal / 8
        x, y = 50 + 17 * cos(angle), 30 + 17 * sin(angle)
        pen.dot(x, y, 11.5, paint.main if petal % 2 else paint.light)
    pen.dot(50, 30, 10, (120, 70, 30) if paint.main[1] > 190 else (253, 212, 60))


def mushroom(pen: Pen, paint: Paint) -> None:
    """Draw a spotted cap on a pale stem."""
    pen.poly([(38, 54), (62, 54), (68, 98), (32, 98)], (246, 234, 212))
    pen.poly([(54, 54), (62, 54), (68, 98), (58, 98)], (220, 205, 180))
    pen.pie((7, 13, 93, 113), 180, 360, paint.main)
    pen.oval(7, 54, 93, 72, paint.dark)
    spot = (255, 252, 245) if sum(paint.main) < 700 else (226, 120, 110)
    for x, y, radius in ((50, 30, 9), (26, 48, 7), (74, 48, 7), (38, 56, 4), (62, 57, 4)):
        pen.dot(x, y, radius, spot)


def ball(pen: Pen, paint: Paint) -> None:
    """Draw a beach ball with wide gores of the colour and narrow pale ones."""
    white = sum(paint.main) > 700
    pale = (214, 220, 232) if white else (255, 252, 244)
    pen.dot(50, 55, 43, paint.main)
    for start in (10, 130, 250):
        pen.pie((7, 12, 93, 98), start, start + 40, pale)
    pen.pie((7, 12, 93, 98), 50, 130, paint.main if white else paint.dark)
    pen.dot(50, 55, 9, pale)
    pen.dot(34, 38, 6, paint.light)


def tent(pen: Pen, paint: Paint) -> None:
    """Draw a ridge tent with an open flap."""
    pen.poly([(46, 18), (78, 24), (99, 94), (70, 98)], paint.dark)
    pen.poly([(46, 18), (2, 98), (74, 98)], paint.main)
    pen.poly([(46, 18), (12, 80), (2, 98), (12, 98)], paint.light)
    pen.poly([(44, 44), (24, 98), (58, 98)], (52, 42, 46))
    pen.poly([(44, 44), (58, 98), (66, 92)], paint.light)


def umbrella(pen: Pen, paint: Paint) -> None:
    """Draw a parasol on a pole."""
    pen.line([(50, 40), (50, 97)], 4, _WOOD)
    pen.pie((2, 4, 98, 100), 180, 360, paint.main)
    pale = (255, 252, 244) if sum(paint.main) < 700 else (206, 212, 224)
    pen.pie((20, 4, 80, 100), 180, 360, pale)
    pen.pie((36, 4, 64, 100), 180, 360, paint.main)
    for x in (2, 26, 50, 74):
        pen.pie((x, 45, x + 24, 61), 180, 360, paint.dark)
    pen.line([(50, 2), (50, 6)], 3, _WOOD)


def chair(pen: Pen, paint: Paint) -> None:
    """Draw a wooden chair from the front right."""
    for x in (22, 72):
        pen.box(x, 6, x + 7, 98, paint.dark, 2)
    pen.box(20, 4, 81, 18, paint.main, 4)
    pen.box(22, 24, 79, 34, paint.main, 2)
    pen.box(22, 40, 79, 48, paint.main, 2)
    pen.poly([(24, 56), (78, 56), (84, 70), (16, 70)], paint.light)
    pen.box(16, 69, 84, 76, paint.main, 2)
    pen.box(17, 74, 25, 98, paint.main, 2)
    pen.box(75, 74, 83, 98, paint.main, 2)


def cactus(pen: Pen, paint: Paint) -> None:
    """Draw a saguaro with two arms."""
    pen.line([(50, 64), (24, 64), (24, 38)], 13, paint.main)
    pen.line([(50, 54), (77, 54), (77, 28)], 13, paint.main)
    pen.box(39, 4, 61, 98.5, paint.main, 11)
    for x in (46, 54):
        pen.line([(x, 12), (x, 94)], 1.8, paint.dark)
    pen.line([(24, 40), (24, 60)], 1.8, paint.dark)
    pen.line([(77, 31), (77, 50)], 1.8, paint.dark)


def snowman(pen: Pen, paint: Paint) -> None:
    """Draw three balls of snow; hat and scarf of the colour."""
    snow, shade = (250, 252, 255), (205, 218, 236)
    pen.dot(50, 78, 21, shade)
    pen.dot(49, 77, 19, snow)
    pen.line([(34, 56), (19, 44)], 2.6, _WOOD)
    pen.line([(66, 56), (81, 44)], 2.6, _WOOD)
    pen.dot(50, 54, 17, shade)
    pen.dot(49, 53, 15, snow)
    pen.dot(50, 30, 14, snow)
    pen.box(36, 38, 64, 46, paint.main, 4)
    pen.box(56, 42, 65, 62, paint.dark, 2)
    pen.box(38, 2, 62, 20, paint.main, 2)
    pen.box(38, 13, 62, 17, paint.light)
    pen.box(31, 18, 69, 22, paint.dark, 2)
    pen.dot(45, 28, 2, INK)
    pen.dot(56, 28, 2, INK)
    pen.poly([(50, 31), (68, 34), (50, 36)], (250, 140, 30))
    for y in (54, 62, 74):
        pen.dot(50, y, 2, INK)


def windmill(pen: Pen, paint: Paint) -> None:
    """Draw a tower of the colour with four sails."""
    pen.poly([(38, 42), (62, 42), (72, 98), (28, 98)], paint.main)
    pen.poly([(55, 42), (62, 42), (72, 98), (60, 98)], paint.dark)
    pen.pie((36, 28, 64, 58), 180, 360, _WOOD)
    pen.box(44, 80, 56, 98, (70, 48, 40), 3)
    pen.box(46, 58, 54, 68, _GLASS, 1)
    for sail in range(4):
        angle = 2 * pi * (sail / 4 + 0.1)
        x, y, nx, ny = cos(angle), sin(angle), -sin(angle), cos(angle)
        corners = ((12, 0), (42, 0), (42, 13), (12, 13))
        pen.poly([(50 + r * x + w * nx, 42 + r * y + w * ny) for r, w in corners], (250, 246, 232))
        pen.line([(50, 42), (50 + 43 * x, 42 + 43 * y)], 2.4, _WOOD)
    pen.dot(50, 42, 4.5, INK)


def castle(pen: Pen, paint: Paint) -> None:
    """Draw two towers with pointed roofs, battlements and a gate."""
    roof = (176, 58, 66) if paint.main[1] > 90 or paint.main[0] < 100 else (66, 88, 150)
    pen.box(20, 50, 80, 98, paint.main)
    for x in (24, 38, 52, 66):
        pen.box(x, 43, x + 9, 52, paint.main)
    for x in (4, 72):
        pen.box(x, 36, x + 24, 98, paint.dark)
        pen.box(x, 36, x + 17, 98, paint.main)
        pen.poly([(x - 3, 38), (x + 12, 8), (x + 27, 38)], roof)
        pen.box(x + 8, 48, x + 15, 62, (60, 54, 70), 3)
    pen.pie((37, 62, 63, 94), 180, 360, (70, 48, 40))
    pen.box(37, 77, 63, 98, (70, 48, 40))
    for x in (43, 50, 57):
        pen.line([(x, 66), (x, 97)], 1.3, (160, 130, 100))


PAINTERS: Final[dict[str, Callable[[Pen, Paint], None]]] = {
    "house": house,
    "tree": tree,
    "car": car,
    "bus": bus,
    "bicycle": bicycle,
    "flower": flower,
    "mushroom": mushroom,
    "ball": ball,
    "tent": tent,
    "umbrella": umbrella,
    "chair": chair,
    "cactus": cactus,
    "snowman": snowman,
    "windmill": windmill,
    "castle": castle,
}
