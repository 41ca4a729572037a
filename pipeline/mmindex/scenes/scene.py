"""A scene as data: its things and their places, chosen at random from (seed, number) alone."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from mmindex.core.errors import UsageError
from mmindex.scenes.vocabulary import (
    BACKGROUNDS,
    COMMON,
    KINDS,
    LAST_SEED,
    SCENES_VERSION,
    SIZE_PX,
    SIZES,
    UNDER_WATER,
    Background,
    Kind,
    LaneType,
    Size,
)

T = TypeVar("T")

_MARGIN_PX: Final = 3
_HIDDEN_MOST: Final = (
    0.3  # share of a thing's box that nearer things may cover: it remains recognisable
)
_TOUCH_MOST: Final = 0.08  # the same for things in one lane
_TRIES: Final = 14
_THING_COUNTS: Final = ((1, 0.13), (2, 0.35), (3, 0.36), (4, 0.16))
_GROUP_COUNTS: Final = ((1, 0.66), (2, 0.22), (3, 0.12))
_SIZE_ODDS: Final[tuple[tuple[Size, float], ...]] = (
    ("small", 0.2),
    ("medium", 0.55),
    ("large", 0.25),
)
_SKIES: Final = (
    (("day", "clear"), 0.3),
    (("day", "cloudy"), 0.14),
    (("day", "rain"), 0.12),
    (("day", "rainbow"), 0.1),
    (("sunset", "clear"), 0.16),
    (("night", "clear"), 0.18),
)
_SNOW_SKIES: Final = (
    (("day", "clear"), 0.3),
    (("day", "cloudy"), 0.15),
    (("day", "snowfall"), 0.22),
    (("sunset", "clear"), 0.15),
    (("night", "clear"), 0.18),
)


class Lot:
    """Seeded random choices from `Random.random`, whose values are the same in every Python."""

    __slots__ = ("_draw",)

    def __init__(self, *key: object) -> None:
        name = "/".join(str(part) for part in ("scenes", SCENES_VERSION, *key))
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        self._draw = random.Random(int.from_bytes(digest, "big")).random

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self._draw()

    def chance(self, share: float) -> bool:
        """Return True with probability `share`."""
        return self._draw() < share

    def below(self, limit: int) -> int:
        """Return an integer in [0, limit)."""
        return int(self._draw() * limit)

    def one_of(self, options: Sequence[T]) -> T:
        """Return any option, all equally likely."""
        return options[self.below(len(options))]

    def weighted(self, options: Sequence[tuple[T, float]]) -> T:
        """Return a random option, by weight."""
        mark = self._draw() * sum(weight for _, weight in options)
        for option, weight in options:
            mark -= weight
            if mark < 0:
                return option
        return options[-1][0]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """Return the options in random order (Fisher-Yates)."""
        items = list(options)
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
        return items


@dataclass(frozen=True, slots=True)
class Spot:
    """The position of one copy in pixels: centre `x`; `y`: baseline, or middle in sky and water."""

    x: float
    y: float
    flip: bool


@dataclass(frozen=True, slots=True)
class Thing:
    """One to three of a kind with the same colour and size, in one lane (0 farthest, 2 nearest)."""

    kind: str
    colour: str
    size: Size
    lane: int
    lane_type: LaneType
    spots: tuple[Spot, ...]

    @property
    def count(self) -> int:
        """The number of copies."""
        return len(self.spots)

    @property
    def left(self) -> float:
        """The x of the leftmost copy's centre, in pixels."""
        return min(spot.x for spot in self.spots)

    @property
    def right(self) -> float:
        """The x of the rightmost copy's centre, in pixels."""
        return max(spot.x for spot in self.spots)


@dataclass(frozen=True, slots=True)
class Scene:
    """The ground truth of one image. No two things in a scene are of the same kind."""

    seed: int
    number: int
    background: str
    time: str
    weather: str
    variant: int
    things: tuple[Thing, ...]


Box = tuple[float, float, float, float]


def box_of(kind: Kind, size: Size, lane_type: LaneType, spot: Spot) -> Box:
    """Return (left, top, right, bottom) in pixels of one copy as drawn."""
    edge = kind.span * SIZES[size]
    half, tall = edge * kind.wide / 2, edge * kind.tall
    bottom = spot.y + tall / 2 if lane_type in ("sky", "water") else spot.y
    return spot.x - half, bottom - tall, spot.x + half, bottom


def make_scene(seed: int, number: int) -> Scene:
    """Return the scene `number` of the corpus `seed`; it is the same on every machine.

    Raises UsageError unless 0 <= seed < 2**63 and number >= 0. Seeds from `RESERVED_SEED` on are
    for training only, so that every user's seed is unseen by a trained model.
    """
    if not 0 <= seed <= LAST_SEED or number < 0:
        raise UsageError(
            f"no scene {number} of seed {seed}", "numbers start at 0, seeds end at 2**63 - 1"
        )
    lot = Lot(seed, number, "scene")
    background = lot.weighted([(place, place.weight) for place in BACKGROUNDS.values()])
    sky = _sky(background.name, lot)
    wanted = lot.weighted(_THING_COUNTS)
    things: list[Thing] = []
    boxes: list[tuple[int, Box]] = []
    for _ in range(wanted * _TRIES):
        if len(things) == wanted:
            break
        thing = _try_thing(background, sky, tuple(other.kind for other in things), lot)
        kind = KINDS[thing.kind]
        placed = [(thing.lane, box_of(kind, thing.size, thing.lane_type, s)) for s in thing.spots]
        if _fits_in(placed, boxes):
            things.append(thing)
            boxes += placed
    return Scene(seed, number, background.name, *sky, lot.below(6), tuple(things))


def _sky(background: str, lot: Lot) -> tuple[str, str]:
    if background == "underwater":
        return UNDER_WATER, UNDER_WATER
    return lot.weighted(_SNOW_SKIES if background == "snow" else _SKIES)


def _candidates(background: Background, lane_type: LaneType, sky: tuple[str, str]) -> list[Kind]:
    return [
        kind
        for kind in KINDS.values()
        if lane_type in kind.lanes
        and (not kind.backgrounds or background.name in kind.backgrounds)
        and (not kind.skies or sky in kind.skies)
    ]


_KINDS_HERE: Final = {
    (place.name, lane.type, sky): _candidates(place, lane.type, sky)
    for place in BACKGROUNDS.values()
    for lane in place.lanes
    for sky in {*dict(_SKIES), *dict(_SNOW_SKIES), (UNDER_WATER, UNDER_WATER)}
}


def _try_thing(
    background: Background, sky: tuple[str, str], used: tuple[str, ...], lot: Lot
) -> Thing:
    lane_number = lot.weighted(((0, 0.27), (1, 0.36), (2, 0.37)))
    lane = background.lanes[lane_number]
    kinds = _KINDS_HERE[background.name, lane.type, sky]
    free = [kind for kind in kinds if kind.name not in used] or kinds
    kind = lot.weighted([(kind, COMMON.get(kind.name, 1.0)) for kind in free])
    if kind.name in used:  # every kind of this lane is used: the caller tries another lane
        return Thing(kind.name, kind.colours[0], "medium", lane_number, lane.type, ())
    count = min(lot.weighted(_GROUP_COUNTS), kind.most)
    size = lot.weighted(_SIZE_ODDS)
    if size == "large" and (count > 1 or kind.span > 88):
        size = "medium"
    half = kind.span * SIZES[size] * kind.wide / 2 + _MARGIN_PX
    step = 2 * half * lot.between(1.0, 1.3)
    room = SIZE_PX - 2 * half - step * (count - 1)
    if room < 0:
        return Thing(kind.name, kind.colours[0], size, lane_number, lane.type, ())
    start = half + lot.between(0, room)
    colour = lot.weighted([(name, COMMON.get(name, 1.0)) for name in kind.colours])
    flip = lot.chance(0.5)
    low, high = lane.y - lane.spread, lane.y + lane.spread
    base = lot.between(low, high)
    spots = tuple(
        Spot(
            round(start + step * place, 1),
            round(min(high, max(low, base + (lot.between(-4, 4) if count > 1 else 0))), 1),
            flip if count == 1 else lot.chance(0.5),
        )
        for place in range(count)
    )
    return Thing(kind.name, colour, size, lane_number, lane.type, spots)


def _fits_in(new: list[tuple[int, Box]], old: list[tuple[int, Box]]) -> bool:
    if not new or any(box[1] < 0 or box[3] > SIZE_PX for _, box in new):
        return False
    for lane, box in new:
        for other_lane, other in old:
            far, most = (box, other)[lane > other_lane], _HIDDEN_MOST
            if lane == other_lane:
                far, most = min(box, other, key=_area), _TOUCH_MOST
            wide = min(box[2], other[2]) - max(box[0], other[0])
            tall = min(box[3], other[3]) - max(box[1], other[1])
            if wide > 0 and tall > 0 and wide * tall > most * _area(far):
                return False
    return True


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
