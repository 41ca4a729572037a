"""What a caption asserts, and whether it is true of a scene."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from mmindex.core.errors import UsageError
from mmindex.scenes.scene import Scene, Thing
from mmindex.scenes.vocabulary import COLOURS, KINDS, PLACES, SIZES, TIMES, WEATHERS, Size

RelationName = Literal["left of", "right of", "above", "below", "behind", "in front of", "next to"]
RELATIONS: Final[tuple[RelationName, ...]] = get_args(RelationName)

SIDE_PX: Final = 26  # minimum distance of centres for left of and right of
OVERLAP_PX: Final = 46  # maximum distance of centres for above, below, behind and in front of
NEAR_PX: Final = 95  # maximum distance of centres for next to


@dataclass(frozen=True, slots=True)
class Mention:
    """A thing as named in a caption; None leaves colour or size open.

    `count` 1 ("a boat") is true of one or more, 2 and 3 of exactly that many, None ("some boats")
    of two or more.
    """

    kind: str
    colour: str | None = None
    size: Size | None = None
    count: int | None = 1

    def __post_init__(self) -> None:
        if (
            self.kind not in KINDS
            or self.colour not in (None, *COLOURS)
            or self.size not in (None, *SIZES)
            or self.count not in (None, 1, 2, 3)
        ):
            raise UsageError(
                f"no such thing can be drawn: {self}", "see KINDS, COLOURS and SIZES for the words"
            )


@dataclass(frozen=True, slots=True)
class Relation:
    """`objects[subject]` is `name` (left of, behind, ...) `objects[other]`."""

    subject: int
    name: RelationName
    other: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Everything that a caption asserts; fields that are None or empty assert nothing.

    `background` is a key of `PLACES`: a background's name, where "sea" includes the beach's sea and
    the underwater world, and "open sea" is only the background "sea".
    """

    objects: tuple[Mention, ...] = ()
    relations: tuple[Relation, ...] = ()
    background: str | None = None
    time: str | None = None
    weather: str | None = None

    def __post_init__(self) -> None:
        if (
            self.background not in (None, *PLACES)
            or self.time not in (None, *TIMES)
            or self.weather not in (None, *WEATHERS)
            or any(r.name not in RELATIONS for r in self.relations)
            or len({mention.kind for mention in self.objects}) != len(self.objects)
        ):
            raise UsageError(
                f"no scene can be asked this: {self}", "see PLACES, TIMES, WEATHERS and RELATIONS"
            )


def fits(claim: Claim, scene: Scene) -> bool:
    """Return whether everything in `claim` is true of `scene`, according to its ground truth."""
    if claim.background is not None and scene.background not in PLACES[claim.background]:
        return False
    if claim.time is not None and claim.time != scene.time:
        return False
    if claim.weather is not None and claim.weather != scene.weather:
        return False
    named: list[Thing] = []
    for mention in claim.objects:
        found = next((thing for thing in scene.things if is_meant(mention, thing)), None)
        if found is None:
            return False
        named.append(found)
    return all(holds(r.name, named[r.subject], named[r.other]) for r in claim.relations)


def is_meant(mention: Mention, thing: Thing) -> bool:
    """Return whether `mention` describes `thing`. A scene has at most one thing of a kind."""
    if mention.kind != thing.kind:
        return False
    if mention.colour is not None and mention.colour != thing.colour:
        return False
    if mention.size is not None and mention.size != thing.size:
        return False
    if mention.count is None:
        return thing.count >= 2
    return mention.count == 1 or mention.count == thing.count


def holds(name: RelationName, thing: Thing, other: Thing) -> bool:
    """Return whether `thing` is `name` `other`; in groups, this must be true of every copy.

    Things in two ground lanes are behind one another; if one of them is in the air or in the water,
    they are above one another.
    """
    match name:
        case "left of":
            return thing.right + SIDE_PX <= other.left
        case "right of":
            return other.right + SIDE_PX <= thing.left
        case "above":
            return (
                thing.lane < other.lane and not _both_stand(thing, other) and _aligned(thing, other)
            )
        case "below":
            return holds("above", other, thing)
        case "behind":
            return thing.lane < other.lane and _both_stand(thing, other) and _aligned(thing, other)
        case "in front of":
            return holds("behind", other, thing)
        case "next to":
            return thing.lane == other.lane and any(
                abs(a.x - b.x) <= NEAR_PX for a in thing.spots for b in other.spots
            )


def _both_stand(thing: Thing, other: Thing) -> bool:
    standing = ("ground", "surface", "floor")
    return thing.lane_type in standing and other.lane_type in standing


def _aligned(thing: Thing, other: Thing) -> bool:
    return thing.left <= other.right + OVERLAP_PX and other.left <= thing.right + OVERLAP_PX
