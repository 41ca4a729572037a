"""Boats and sea animals."""

from collections.abc import Callable
from typing import Final

from mmindex.scenes.draw_sky import turned
from mmindex.scenes.pen import INK, Paint, Pen, darker


def boat(pen: Pen, paint: Paint) -> None:
    """Draw a sailing boat: hull and flag of the colour, pale sails."""
    pen.box(47, 6, 51, 76, (122, 78, 46))
    pen.poly([(52, 12), (52, 68), (88, 68)], (255, 250, 238))
    pen.poly([(52, 40), (52, 68), (88, 68), (70, 40)], (232, 224, 208))
    pen.poly([(46, 20), (46, 68), (14, 68)], paint.light)
    pen.poly([(51, 2), (66, 7), (51, 13)], paint.main)
    pen.poly([(3, 72), (97, 72), (82, 97), (18, 97)], paint.main)
    pen.poly([(11, 85), (89.5, 85), (82, 97), (18, 97)], paint.dark)
    pen.box(3, 71, 97, 75, paint.light, 1)


def whale(pen: Pen, paint: Paint) -> None:
    """Draw a whale blowing, tail up."""
    pen.line([(72, 40), (70, 28), (60, 23)], 4, (214, 238, 252))
    pen.line([(72, 40), (74, 28), (84, 23)], 4, (214, 238, 252))
    pen.poly(
        [(14, 70), (16, 48), (2, 34), (18, 34), (24, 44), (34, 32), (36, 42), (26, 52), (34, 66)],
        paint.main,
    )
    pen.oval(12, 40, 98, 98, paint.main)
    pen.pie((14, 46, 98, 98), 10, 150, paint.light)
    pen.poly([(50, 76), (64, 78), (50, 95)], paint.dark)
    pen.dot(83, 64, 3, paint.eye)
    pen.arc((78, 62, 98, 80), (30, 150), 1.8, paint.line)


def fish(pen: Pen, paint: Paint) -> None:
    """Draw a fish swimming to the right."""
    pen.poly([(26, 50), (1, 24), (8, 50), (1, 77)], paint.dark)
    pen.poly([(36, 32), (52, 16), (70, 30)], paint.dark)
    pen.poly([(44, 68), (52, 83), (64, 68)], paint.dark)
    pen.oval(18, 24, 98, 76, paint.main)
    pen.pie((18, 24, 98, 76), 20, 160, paint.light)
    for x in (40, 54):
        pen.arc((x - 14, 30, x + 8, 70), (300, 60), 3.4, paint.dark)
    pen.dot(82, 43, 6.4, (255, 255, 255))
    pen.dot(84, 43, 3.4, INK)
    pen.arc((82, 48, 98, 62), (60, 150), 2, paint.line)


def turtle(pen: Pen, paint: Paint) -> None:
    """Draw a domed shell with four flippers."""
    skin = (150, 190, 110) if paint.main[1] < 150 or paint.main[0] > 200 else (206, 190, 120)
    pen.poly([(24, 64), (4, 82), (16, 84), (36, 70)], skin)
    pen.poly([(60, 66), (72, 83), (84, 80), (70, 62)], skin)
    pen.poly([(14, 60), (2, 62), (14, 68)], skin)
    pen.oval(74, 38, 99, 60, skin)
    pen.box(66, 50, 84, 64, skin, 4)
    pen.pie((10, 17, 80, 119), 180, 360, paint.main)
    pen.box(8, 62, 82, 70, paint.dark, 4)
    for x, y, radius in ((45, 36, 9), (28, 52, 7.5), (62, 52, 7.5), (45, 55, 6)):
        pen.dot(x, y, radius, paint.light)
    pen.dot(91, 46, 2.6, INK)


def octopus(pen: Pen, paint: Paint) -> None:
    """Draw a big head over curling arms."""
    for arm, (x, end) in enumerate(((26, 6), (36, 24), (46, 41), (55, 59), (64, 76), (74, 94))):
        low = 88 if arm % 2 else 94
        colour = paint.dark if arm % 2 else paint.main
        pen.line([(x, 60), ((x + end) / 2, 80), (end, low), (end, low - 8)], 9, colour)
    pen.oval(18, 4, 82, 74, paint.main)
    pen.oval(28, 10, 52, 34, paint.light)
    for x in (38, 62):
        pen.oval(x - 8, 36, x + 8, 54, (255, 255, 255))
        pen.dot(x, 46, 4.4, INK)
    pen.arc((40, 50, 60, 66), (20, 160), 2.4, paint.line)


def crab(pen: Pen, paint: Paint) -> None:
    """Draw a crab from the front, claws up."""
    for side in (-1, 1):
        for spread, low in ((44, 84), (38, 95), (28, 98)):
            pen.line(
                [(50 + side * 22, 76), (50 + side * spread, 78), (50 + side * spread, low - 3)],
                4.4,
                paint.dark,
            )
        pen.line([(50 + side * 26, 66), (50 + side * 38, 56)], 6, paint.dark)
        pen.dot(50 + side * 36, 44, 12.5, paint.main)
        pen.poly(
            [(50 + side * 36, 46), (50 + side * 30, 28), (50 + side * 42, 28)],
            darker(paint.main, 0.6),
        )
        pen.line([(50 + side * 10, 60), (50 + side * 10, 48)], 3, paint.dark)
    pen.oval(20, 54, 80, 94, paint.main)
    pen.oval(30, 58, 60, 72, paint.light)
    for x in (40, 60):
        pen.dot(x, 47, 5.6, (255, 255, 255))
        pen.dot(x, 47, 2.8, INK)
    pen.arc((40, 70, 60, 84), (20, 160), 2.4, paint.line)


def starfish(pen: Pen, paint: Paint) -> None:
    """Draw five arms with dots."""
    points = []
    for corner in range(10):
        radius = 22 if corner % 2 else 49
        points.append(turned(radius, corner / 10 - 0.25, (50, 54)))
    pen.poly(points, paint.main)
    for arm in range(5):
        for radius in (14, 24, 33):
            x, y = turned(radius, arm / 5 - 0.25, (50, 54))
            pen.dot(x, y, 4.2 - radius / 14, paint.light)
    pen.dot(44, 52, 3, paint.eye)
    pen.dot(56, 52, 3, paint.eye)


def submarine(pen: Pen, paint: Paint) -> None:
    """Draw a round hull with portholes, a tower and a periscope."""
    pen.line([(52, 34), (52, 18), (64, 18)], 4, paint.dark)
    pen.box(40, 30, 66, 50, paint.dark, 4)
    pen.poly([(14, 60), (2, 42), (8, 62), (2, 84)], paint.dark)
    pen.box(8, 42, 98, 84, paint.main, 20)
    pen.box(18, 72, 90, 84, paint.dark, 6)
    for x in (36, 56, 76):
        pen.dot(x, 59, 8, paint.line)
        pen.dot(x, 59, 5.6, (190, 228, 250))


def jellyfish(pen: Pen, paint: Paint) -> None:
    """Draw a bell with trailing arms."""
    for arm, x in enumerate((24, 37, 50, 63, 76)):
        sway = 5 if arm % 2 else -5
        points = [(x, 46), (x + sway, 62), (x - sway, 78), (x + sway, 97 - abs(arm - 2) * 5)]
        pen.line(points, 4.6, paint.dark if arm % 2 else paint.light)
    pen.pie((14, 2, 86, 100), 180, 360, paint.main)
    for x in (14, 32, 50, 68):
        pen.oval(x, 43, x + 18, 59, paint.main)
    pen.oval(26, 12, 50, 32, paint.light)
    for x in (40, 62):
        pen.dot(x, 38, 3.4, paint.eye)


PAINTERS: Final[dict[str, Callable[[Pen, Paint], None]]] = {
    "boat": boat,
    "whale": whale,
    "fish": fish,
    "turtle": turtle,
    "octopus": octopus,
    "crab": crab,
    "starfish": starfish,
    "submarine": submarine,
    "jellyfish": jellyfish,
}
