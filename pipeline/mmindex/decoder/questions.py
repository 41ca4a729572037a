"""Prompts with their answers, made from the ground truth of scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mmindex.scenes import Claim, Mention, Scene, Thing, captions, complete, fits
from mmindex.scenes.claims import holds
from mmindex.scenes.scene import Lot
from mmindex.scenes.vocabulary import COLOURS, KINDS, SIZE_PX
from mmindex.scenes.words import NOUNS, joined, with_article

DESCRIBE: Final = "describe the picture"
BRIEFLY: Final = "describe the picture briefly"
NOTHING: Final = "nothing"
_COUNTS: Final = ("", "", "two", "three")
_PARTS: Final = ("left", "middle", "right")
_ANIMALS: Final = (
    *("bird", "butterfly", "dog", "cat", "horse", "cow", "sheep", "rabbit", "duck", "whale"),
    *("fish", "turtle", "octopus", "crab", "starfish", "jellyfish"),
)
_VEHICLES: Final = ("balloon", "plane", "car", "bus", "bicycle", "boat", "submarine")


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt with its answer.

    Attributes:
        type: the type of the question or the task.
        prompt: the words of the question.
        answer: the words of the answer.
    """

    type: str
    prompt: str
    answer: str


def describe(scene: Scene, lot: Lot) -> Asked:
    """Return a prompt for a description, complete or brief."""
    if lot.chance(0.65):
        return Asked("caption", DESCRIBE, complete(scene, lot).text)
    return Asked("caption", BRIEFLY, lot.one_of(captions(scene)).text)


def ask(scene: Scene, lot: Lot) -> Asked:
    """Return a question about a scene, or a task."""
    while True:
        asked = lot.weighted(_MAKERS)(scene, lot)
        if asked is not None:
            return asked


def _is_there(scene: Scene, lot: Lot) -> Asked:
    thing, form = lot.one_of(scene.things), lot.below(4)
    kind, colour = thing.kind, thing.colour if lot.chance(0.6) else None
    if form == 2:  # another kind, which often occurs
        kind = lot.one_of(tuple(KINDS))
    elif form == 3:
        colour = lot.one_of(KINDS[kind].colours)
    claim = Claim(objects=(Mention(kind, colour),))
    noun, _ = lot.one_of(NOUNS[kind])
    words = f"{colour} {noun}" if colour else noun
    lead = lot.one_of(("is there {}", "is there {} in the picture", "do you see {}"))
    answer = "yes" if fits(claim, scene) else "no"
    return Asked("yes/no", lead.format(with_article(words)), answer)


def _how_many(scene: Scene, lot: Lot) -> Asked:
    kind = lot.one_of(scene.things).kind
    if lot.chance(0.12):
        kind = lot.one_of(tuple(KINDS))
    number = sum(thing.count for thing in scene.things if thing.kind == kind)
    _, nouns = lot.one_of(NOUNS[kind])
    lead = lot.one_of(("how many {}", "how many {} are there", "how many {} do you see"))
    return Asked("count", lead.format(nouns), str(number))


def _which_colour(scene: Scene, lot: Lot) -> Asked:
    thing = lot.one_of(scene.things)
    noun, nouns = lot.one_of(NOUNS[thing.kind])
    named = f"is the {noun}" if thing.count == 1 else f"are the {nouns}"
    spelt = lot.one_of(("colour", "color"))
    if thing.kind in ("person", "snowman"):
        of = f"does the {noun} wear" if thing.count == 1 else f"do the {nouns} wear"
        return Asked("colour", f"which {spelt} {of}", thing.colour)
    return Asked("colour", f"{lot.one_of(('what', 'which'))} {spelt} {named}", thing.colour)


def _place(scene: Scene, lot: Lot) -> Asked:
    words = ("where is this", "what place is this", "what is the place", "where was this drawn")
    return Asked("place", lot.one_of(words), scene.background)


def _time(scene: Scene, lot: Lot) -> Asked | None:
    words = ("what time of day is it", "is it day, sunset or night", "what time is it")
    return None if scene.time == "none" else Asked("time", lot.one_of(words), scene.time)


def _weather(scene: Scene, lot: Lot) -> Asked | None:
    words = ("what is the weather like", "how is the weather", "what weather is it")
    return None if scene.weather == "none" else Asked("weather", lot.one_of(words), scene.weather)


def _side(scene: Scene, lot: Lot) -> Asked | None:
    pairs = [(a, b) for a in scene.things for b in scene.things if holds("left of", a, b)]
    if not pairs:
        return None
    pair = lot.one_of(pairs)
    swap = lot.chance(0.5)
    one, two = pair[::-1] if swap else pair
    verb, other = _subject(one, lot), _the(two, lot)
    text = f"{verb} left or right of {other}"
    return Asked("side", text, "right" if swap else "left")


def _part(scene: Scene, lot: Lot) -> Asked | None:
    single = [thing for thing in scene.things if thing.count == 1]
    if not single:
        return None
    thing = lot.one_of(single)
    words = ("on which side is {}", "in which part of the picture is {}")
    part = min(len(_PARTS) - 1, int(thing.left / SIZE_PX * len(_PARTS)))
    return Asked("part", lot.one_of(words).format(_the(thing, lot)), _PARTS[part])


def _the(thing: Thing, lot: Lot) -> str:
    return f"the {lot.one_of(NOUNS[thing.kind])[thing.count > 1]}"


def _subject(thing: Thing, lot: Lot) -> str:
    return f"{'is' if thing.count == 1 else 'are'} {_the(thing, lot)}"


def _listed(things: list[Thing], *, colours: bool = False) -> str:
    """Return things from left to right: "a cat and two dogs"."""
    named = []
    for thing in sorted(things, key=lambda one: (one.left, one.kind)):
        noun, nouns = NOUNS[thing.kind][0]
        colour = f"{thing.colour} " if colours else ""
        words = f"{_COUNTS[thing.count]} {colour}{nouns}"
        named.append(with_article(f"{colour}{noun}") if thing.count == 1 else words)
    return joined(named) if named else NOTHING


def _list_animals(scene: Scene) -> str:
    return _listed([thing for thing in scene.things if thing.kind in _ANIMALS])


def _list_vehicles(scene: Scene) -> str:
    return _listed([thing for thing in scene.things if thing.kind in _VEHICLES])


def _list_things(scene: Scene) -> str:
    return _listed(list(scene.things), colours=True)


def _list_colours(scene: Scene) -> str:
    present = {thing.colour for thing in scene.things}
    return joined([colour for colour in COLOURS if colour in present])


TASKS: Final[tuple[tuple[tuple[str, ...], str, Callable[[Scene], str]], ...]] = (
    (("list the animals", "which animals are there", "name all animals in the picture",
      "what animals are there", "which animals do you see"),
     "what animals do you see", _list_animals),
    (("list the vehicles", "which vehicles are there", "name all vehicles in the picture",
      "what vehicles are there", "which vehicles do you see"),
     "what vehicles do you see", _list_vehicles),
    (("list the things", "which things are there", "name all things in the picture",
      "what things are there", "which things do you see"),
     "what things do you see", _list_things),
    (("list the colours of the things", "which colours are there", "name all colours",
      "what colours are there", "which colours do you see"),
     "what colours do you see", _list_colours),
)  # fmt: skip
"""Tasks: the wordings to train on, one that is kept for measuring, and the answer."""


def _task(scene: Scene, lot: Lot) -> Asked:
    wordings, _, answer = lot.one_of(TASKS)
    return Asked("task", lot.one_of(wordings), answer(scene))


_Maker = Callable[[Scene, Lot], "Asked | None"]
_MAKERS: Final[tuple[tuple[_Maker, float], ...]] = (
    (_is_there, 2.0),
    (_how_many, 1.5),
    (_which_colour, 2.0),
    (_place, 0.3),
    (_time, 0.3),
    (_weather, 0.4),
    (_side, 1.5),
    (_part, 1.0),
    (_task, 0.8),
)
QUESTIONS: Final[dict[str, _Maker]] = {
    "yes/no": _is_there,
    "count": _how_many,
    "colour": _which_colour,
    "place": _place,
    "time": _time,
    "weather": _weather,
    "side": _side,
    "part": _part,
}
"""The types of questions, for measuring."""
