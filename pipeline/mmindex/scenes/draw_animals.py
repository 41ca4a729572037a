"""People and land animals, all facing right."""

from collections.abc import Callable
from typing import Final

from mmindex.scenes.pen import INK, Paint, Pen

_SKIN: Final = (240, 190, 150)
_PINK: Final = (250, 160, 170)


def person(pen: Pen, paint: Paint) -> None:
    """Draw a standing person, in a shirt and a hat of the colour, and dark trousers."""
    pen.box(38, 62, 48, 95, (60, 66, 98), 2)
    pen.box(52, 62, 62, 95, (60, 66, 98), 2)
    pen.box(34, 92, 49, 98.5, INK, 3)
    pen.box(51, 92, 66, 98.5, INK, 3)
    pen.line([(37, 40), (31, 60)], 8.5, paint.dark)
    pen.line([(63, 40), (69, 60)], 8.5, paint.dark)
    pen.dot(31, 64, 4.4, _SKIN)
    pen.dot(69, 64, 4.4, _SKIN)
    pen.box(34, 33, 66, 69, paint.main, 8)
    pen.box(47.5, 36, 52.5, 68, paint.light)
    pen.box(46, 26, 54, 36, _SKIN)
    pen.dot(50, 20, 13, _SKIN)
    pen.pie((36, 3, 64, 33), 180, 360, (92, 58, 36))
    pen.box(36, 16, 40, 24, (92, 58, 36))
    pen.pie((37, 0, 63, 26), 180, 360, paint.main)
    pen.box(35, 12, 72, 16, paint.dark, 2)
    pen.dot(46, 21, 1.9, INK)
    pen.dot(56, 21, 1.9, INK)
    pen.arc((46, 20, 56, 29), (20, 160), 1.6, (170, 70, 60))


def dog(pen: Pen, paint: Paint) -> None:
    """Draw a standing dog with a hanging ear, a long muzzle and a raised tail."""
    pen.line([(14, 54), (7, 42), (8, 28)], 7, paint.main)
    for x, colour in ((22, paint.dark), (62, paint.dark), (14, paint.main), (54, paint.main)):
        pen.box(x, 62, x + 10, 97.5, colour, 4)
    pen.box(11, 46, 68, 74, paint.main, 13)
    pen.poly([(52, 50), (62, 26), (78, 44), (68, 64)], paint.main)
    pen.oval(56, 18, 86, 46, paint.main)
    pen.box(72, 29, 98, 46, paint.light, 7)
    pen.dot(95, 32, 4, INK if paint.eye == INK else (10, 10, 12))
    pen.oval(55, 20, 68, 52, paint.dark)
    pen.dot(77, 28, 2.8, paint.eye)
    pen.line([(56, 52), (68, 58)], 5, (226, 60, 60) if paint.main[1] > 60 else (250, 200, 60))


def cat(pen: Pen, paint: Paint) -> None:
    """Draw a cat sitting upright and facing forward, with pointed ears and a long tail."""
    pen.line([(66, 90), (84, 88), (88, 72), (80, 58), (84, 50)], 8, paint.main)
    pen.oval(24, 46, 74, 98, paint.main)
    pen.oval(37, 56, 61, 94, paint.light)
    pen.box(34, 76, 46, 98, paint.main, 5)
    pen.box(52, 76, 64, 98, paint.main, 5)
    pen.poly([(20, 36), (18, 4), (44, 18)], paint.main)
    pen.poly([(78, 36), (80, 4), (54, 18)], paint.main)
    pen.poly([(25, 28), (23, 12), (37, 19)], _PINK)
    pen.poly([(73, 28), (75, 12), (61, 19)], _PINK)
    pen.oval(18, 12, 80, 56, paint.main)
    pen.oval(34, 34, 64, 55, paint.light)
    for x in (36, 62):
        pen.oval(x - 5.5, 24, x + 5.5, 37, (170, 225, 90))
        pen.oval(x - 2, 25, x + 2, 36, (14, 14, 18))
    pen.poly([(45, 39), (53, 39), (49, 44)], _PINK)
    for y in (41, 47):
        pen.line([(35, 44), (13, y)], 1.2, paint.line)
        pen.line([(63, 44), (85, y)], 1.2, paint.line)


def horse(pen: Pen, paint: Paint) -> None:
    """Draw a standing horse with mane and tail."""
    hair = (58, 40, 30) if paint.eye == INK else (112, 112, 122)
    pen.line([(15, 46), (6, 58), (5, 80)], 8, hair)
    for x, colour in ((24, paint.dark), (58, paint.dark), (15, paint.main), (50, paint.main)):
        pen.box(x, 56, x + 8, 95, colour, 2)
        pen.box(x, 91, x + 8.5, 98.5, INK, 2)
    pen.box(12, 40, 64, 66, paint.main, 12)
    pen.poly([(44, 44), (66, 10), (82, 22), (66, 58), (56, 64)], paint.main)
    pen.poly([(64, 10), (76, 8), (98, 34), (94, 42), (84, 42), (70, 28)], paint.main)
    pen.oval(86, 30, 99, 44, paint.light)
    pen.poly([(66, 14), (68, 1), (75, 10)], paint.main)
    pen.poly([(64, 9), (40, 44), (50, 48), (70, 16)], hair)
    pen.dot(78, 20, 2.4, paint.eye)
    pen.dot(93, 36, 1.6, paint.line)


def cow(pen: Pen, paint: Paint) -> None:
    """Draw a standing cow with patches, horns and an udder."""
    patch = (250, 250, 248) if sum(paint.main) < 420 else INK
    pen.line([(10, 40), (4, 50), (5, 68)], 3, paint.dark)
    pen.dot(5, 70, 4, INK)
    for x, colour in ((22, paint.dark), (58, paint.dark), (12, paint.main), (50, paint.main)):
        pen.box(x, 66, x + 10, 96, colour, 2)
        pen.box(x, 91, x + 10, 98, INK, 2)
    pen.oval(28, 66, 46, 80, _PINK)
    pen.box(8, 34, 70, 74, paint.main, 13)
    pen.oval(18, 38, 38, 58, patch)
    pen.oval(44, 48, 62, 68, patch)
    pen.poly([(68, 30), (66, 21), (76, 28)], (235, 225, 200))
    pen.poly([(90, 30), (93, 21), (84, 28)], (235, 225, 200))
    pen.oval(58, 32, 70, 42, paint.dark)
    pen.oval(88, 32, 99, 42, paint.dark)
    pen.box(66, 27, 92, 62, paint.main, 10)
    pen.oval(66, 48, 93, 66, _PINK)
    pen.dot(74, 57, 2, INK)
    pen.dot(85, 57, 2, INK)
    pen.dot(73, 40, 2.8, paint.eye)
    pen.dot(86, 40, 2.8, paint.eye)


def sheep(pen: Pen, paint: Paint) -> None:
    """Draw a sheep: a ball of wool with a dark face."""
    face = (70, 60, 60) if sum(paint.main) > 240 else (225, 205, 185)
    for x in (24, 36, 54, 64):
        pen.box(x, 72, x + 7, 98, face, 2)
    wool = (
        (20, 46),
        (34, 38),
        (50, 37),
        (64, 42),
        (70, 56),
        (62, 70),
        (46, 74),
        (30, 73),
        (18, 62),
    )
    pen.oval(16, 36, 72, 78, paint.main)
    for x, y in wool:
        pen.dot(x, y, 12.5, paint.main)
    for x, y in ((30, 50), (46, 48), (38, 62), (56, 62)):
        pen.arc((x - 7, y - 7, x + 7, y + 7), (20, 250), 2, paint.dark)
    pen.oval(70, 34, 96, 70, face)
    pen.oval(60, 42, 76, 52, face)
    pen.dot(76, 36, 8.5, paint.main)
    pen.dot(86, 35, 8, paint.main)
    eye = (250, 250, 250) if sum(face) < 300 else INK
    pen.dot(84, 49, 3, eye)


def rabbit(pen: Pen, paint: Paint) -> None:
    """Draw a sitting rabbit facing forward, with long ears."""
    for x in (33, 55):
        pen.oval(x, 2, x + 14, 46, paint.main)
        pen.oval(x + 4, 8, x + 10, 42, _PINK)
    pen.dot(80, 84, 8, paint.light)
    pen.oval(22, 56, 80, 98, paint.main)
    pen.oval(38, 64, 64, 97, paint.light)
    pen.oval(20, 88, 46, 98.5, paint.dark)
    pen.oval(56, 88, 82, 98.5, paint.dark)
    pen.oval(24, 32, 78, 74, paint.main)
    for x in (39, 63):
        pen.oval(x - 4, 44, x + 4, 54, paint.eye)
    pen.oval(40, 54, 62, 70, paint.light)
    pen.poly([(46, 56), (56, 56), (51, 61)], (230, 100, 120))
    pen.box(48, 63, 54, 69, (255, 255, 255))


def duck(pen: Pen, paint: Paint) -> None:
    """Draw a duck swimming or sitting, facing right."""
    pen.poly([(16, 66), (2, 44), (30, 56)], paint.main)
    pen.pie((6, 24, 84, 110), 0, 180, paint.main)
    pen.oval(8, 50, 82, 90, paint.main)
    pen.poly([(52, 70), (56, 38), (78, 40), (80, 70)], paint.main)
    pen.dot(68, 36, 17, paint.main)
    pen.poly([(82, 32), (98, 40), (82, 46)], (250, 140, 20))
    pen.pie((20, 44, 60, 82), 0, 180, paint.dark)
    pen.dot(73, 32, 3.2, paint.eye)


PAINTERS: Final[dict[str, Callable[[Pen, Paint], None]]] = {
    "person": person,
    "dog": dog,
    "cat": cat,
    "horse": horse,
    "cow": cow,
    "sheep": sheep,
    "rabbit": rabbit,
    "duck": duck,
}
