"""What a scene can contain: 39 kinds of things, 11 colours, 9 backgrounds, times and weathers.

Everything that changes an image or a caption for a given (seed, number) belongs to one version:
raise `SCENES_VERSION` when any of it changes, because it is part of the corpus identity.
"""

from dataclasses import dataclass
from typing import Final, Literal

SCENES_VERSION: Final = 1
SIZE_PX: Final = 224
"""Width and height of every image, in pixels."""

RESERVED_SEED: Final = 2**32
"""Users' seeds are below; seeds from here up to 2**63 - 1 are reserved for training models."""
LAST_SEED: Final = 2**63 - 1

Rgb = tuple[int, int, int]
LaneType = Literal["sky", "ground", "surface", "water", "floor"]
Size = Literal["small", "medium", "large"]

COLOURS: Final[dict[str, Rgb]] = {
    "red": (222, 45, 42),
    "orange": (247, 140, 28),
    "yellow": (252, 215, 50),
    "green": (56, 168, 72),
    "blue": (40, 104, 224),
    "purple": (138, 66, 196),
    "pink": (248, 142, 190),
    "brown": (134, 82, 45),
    "black": (48, 48, 54),
    "white": (250, 250, 248),
    "grey": (148, 153, 160),
}
SIZES: Final[dict[Size, float]] = {"small": 0.7, "medium": 1.0, "large": 1.32}

TIMES: Final = ("day", "sunset", "night")
WEATHERS: Final = ("clear", "cloudy", "rain", "rainbow", "snowfall")
UNDER_WATER: Final = "none"
"""The time and the weather of an underwater scene, where neither is visible."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A band of the image; `y` is the baseline of its things, or their middle (sky, water)."""

    type: LaneType
    y: float
    spread: float


@dataclass(frozen=True, slots=True)
class Background:
    """A place with its three lanes, far to near, and how often it is drawn."""

    name: str
    lanes: tuple[Lane, Lane, Lane]
    weight: float


_LAND: Final = (Lane("sky", 44, 16), Lane("ground", 152, 5), Lane("ground", 212, 5))
BACKGROUNDS: Final[dict[str, Background]] = {
    background.name: background
    for background in (
        Background("meadow", _LAND, 1.2),
        Background(
            "sea", (Lane("sky", 42, 14), Lane("surface", 140, 6), Lane("water", 186, 10)), 1.1
        ),
        Background(
            "beach", (Lane("sky", 40, 14), Lane("surface", 136, 4), Lane("ground", 214, 4)), 1.0
        ),
        Background("snow", _LAND, 1.2),
        Background("desert", _LAND, 1.0),
        Background("city", _LAND, 1.2),
        Background("forest", _LAND, 1.0),
        Background("mountains", _LAND, 1.0),
        Background(
            "underwater",
            (Lane("water", 48, 14), Lane("water", 112, 12), Lane("floor", 212, 5)),
            0.9,
        ),
    )
}
PLACES: Final[dict[str, tuple[str, ...]]] = {
    **{name: (name,) for name in BACKGROUNDS},
    "sea": ("sea", "beach", "underwater"),
    "open sea": ("sea",),
}
"""Names of places in claims -> the backgrounds that they apply to (a beach includes the sea)."""

_ALL: Final = tuple(COLOURS)
_FUR: Final = ("brown", "black", "white", "grey", "orange")
_BRIGHT: Final = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
_SEA_LIFE: Final = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
_DRY: Final = ("meadow", "snow", "desert", "city", "forest", "mountains", "beach")
_BRIGHT_SKIES: Final = (("day", "clear"), ("day", "rainbow"), ("sunset", "clear"))
_GREEN: Final = ("meadow", "forest", "mountains")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing.

    `span` is the edge in pixels of its square at medium size; `wide` and `tall` are the shares of
    that square that it fills. It occurs in `lanes` of `backgrounds` and under `skies` (time and
    weather); an empty field means all of them. `most` is the maximum number of copies.
    """

    name: str
    span: int
    wide: float
    tall: float
    lanes: tuple[LaneType, ...]
    colours: tuple[str, ...] = _ALL
    backgrounds: tuple[str, ...] = ()
    skies: tuple[tuple[str, str], ...] = ()
    most: int = 3


COMMON: Final[dict[str, float]] = {
    "house": 3.5,
    "cat": 3.5,
    "tree": 2.0,
    "boat": 1.5,
    "car": 1.5,
    "dog": 1.5,
    "person": 1.5,
    "red": 2.0,
    "blue": 2.0,
}
"""Popular kinds and colours are drawn more often, by these factors."""

KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind("sun", 60, 1.0, 1.0, ("sky",), ("yellow", "orange"), (), _BRIGHT_SKIES, 1),
        Kind(
            "moon",
            54,
            0.8,
            0.96,
            ("sky",),
            ("yellow", "white", "orange"),
            (),
            (("night", "clear"),),
            1,
        ),
        Kind("bird", 56, 1.0, 0.72, ("sky",)),
        Kind("kite", 70, 0.7, 1.0, ("sky",)),
        Kind("balloon", 76, 0.72, 1.0, ("sky",)),
        Kind("plane", 80, 1.0, 0.56, ("sky",)),
        Kind(
            "butterfly", 52, 0.96, 0.86, ("sky",), _ALL, ("meadow", "forest", "mountains", "city")
        ),
        Kind("house", 86, 0.92, 0.92, ("ground",), _BRIGHT, _DRY, (), 2),
        Kind(
            "tree",
            90,
            0.76,
            0.98,
            ("ground",),
            ("green", "orange", "yellow", "red", "pink", "white"),
            ("meadow", "snow", "city", "mountains"),
        ),
        Kind("car", 80, 0.98, 0.52, ("ground",), _ALL, _DRY),
        Kind(
            "bus", 92, 0.98, 0.58, ("ground",), _ALL, ("city", "desert", "mountains", "snow"), (), 2
        ),
        Kind("bicycle", 70, 0.98, 0.68, ("ground",), _ALL, ("meadow", "city", "forest", "beach")),
        Kind("person", 80, 0.46, 0.98, ("ground",)),
        Kind("dog", 68, 0.96, 0.8, ("ground",), _FUR),
        Kind("cat", 64, 0.8, 0.94, ("ground",), _FUR),
        Kind("horse", 80, 0.98, 0.98, ("ground",), _FUR, ("meadow", "desert", "mountains", "snow")),
        Kind("cow", 78, 0.98, 0.76, ("ground",), ("brown", "black", "white", "grey"), _GREEN),
        Kind("sheep", 64, 0.94, 0.76, ("ground",), ("white", "black", "grey", "brown"), _GREEN),
        Kind(
            "rabbit",
            58,
            0.66,
            0.97,
            ("ground",),
            (*_FUR, "pink"),
            ("meadow", "forest", "snow", "mountains"),
        ),
        Kind(
            "flower", 62, 0.6, 0.98, ("ground",), _BRIGHT, ("meadow", "forest", "mountains", "city")
        ),
        Kind("mushroom", 56, 0.86, 0.86, ("ground",), (*_BRIGHT, "brown"), _GREEN),
        Kind("ball", 50, 0.86, 0.86, ("ground",)),
        Kind("tent", 78, 0.98, 0.8, ("ground",)),
        Kind("umbrella", 70, 0.98, 0.98, ("ground",), _ALL, ("beach", "city", "meadow")),
        Kind("chair", 64, 0.66, 0.98, ("ground",), _ALL, ("beach", "meadow", "city", "snow")),
        Kind(
            "cactus", 80, 0.7, 0.98, ("ground",), ("green", "yellow", "pink", "purple"), ("desert",)
        ),
        Kind("snowman", 78, 0.66, 0.98, ("ground",), _BRIGHT[:7], ("snow",), (), 2),
        Kind(
            "windmill", 92, 0.86, 0.98, ("ground",), _ALL, ("meadow", "desert", "mountains"), (), 2
        ),
        Kind("castle", 92, 0.96, 0.92, ("ground",), _ALL, _DRY, (), 2),
        Kind("boat", 84, 0.94, 0.96, ("surface",)),
        Kind(
            "duck",
            56,
            0.92,
            0.8,
            ("surface", "ground"),
            (*_FUR, "yellow"),
            ("sea", "meadow", "beach"),
        ),
        Kind(
            "whale",
            86,
            0.98,
            0.74,
            ("surface", "water"),
            ("blue", "grey", "black", "purple", "pink", "white"),
            ("sea", "underwater"),
            (),
            2,
        ),
        Kind("fish", 62, 0.98, 0.66, ("water",)),
        Kind(
            "turtle",
            66,
            0.98,
            0.66,
            ("water",),
            ("green", "brown", "yellow", "orange", "blue", "purple"),
        ),
        Kind("octopus", 68, 0.94, 0.94, ("floor", "water"), _SEA_LIFE, ("underwater",)),
        Kind("crab", 62, 0.98, 0.7, ("floor", "ground"), _SEA_LIFE, ("underwater", "beach")),
        Kind("starfish", 52, 0.96, 0.94, ("floor", "ground"), _SEA_LIFE, ("underwater", "beach")),
        Kind("submarine", 82, 0.98, 0.68, ("water",), _ALL, ("underwater",), (), 2),
        Kind("jellyfish", 62, 0.72, 0.98, ("water",), _SEA_LIFE, ("underwater", "sea")),
    )
}
