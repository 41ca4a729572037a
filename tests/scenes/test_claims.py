"""Whether a claim is true of a scene, with scenes made by hand."""

import pytest

from mmindex.core.errors import UsageError
from mmindex.scenes import Claim, Mention, Relation, Scene, Spot, Thing, fits, make_scene
from mmindex.scenes.claims import RelationName, holds
from mmindex.scenes.vocabulary import LaneType


def thing(kind: str, colour: str, lane: int, *xs: float, lane_type: LaneType = "ground") -> Thing:
    spots = tuple(Spot(x, 150, False) for x in xs)
    return Thing(kind, colour, "medium", lane, lane_type, spots)


CAT = thing("cat", "black", 2, 40)
HOUSE = thing("house", "blue", 2, 120)
TREES = thing("tree", "green", 1, 50, 120)
BIRD = thing("bird", "red", 0, 60, lane_type="sky")
WINTER = Scene(1, 0, "snow", "day", "snowfall", 0, (CAT, HOUSE, TREES, BIRD))
BOAT = thing("boat", "red", 1, 100, lane_type="surface")
SHORE = Scene(1, 1, "beach", "night", "clear", 0, (BOAT,))


@pytest.mark.parametrize(
    ("claim", "scene", "truth"),
    [
        (Claim(), WINTER, True),
        (Claim((Mention("tree", count=2),), background="snow"), WINTER, True),
        (Claim((Mention("tree", count=3),), background="snow"), WINTER, False),
        (Claim((Mention("tree", count=None),)), WINTER, True),
        (Claim((Mention("tree"),)), WINTER, True),
        (Claim((Mention("cat", count=None),)), WINTER, False),
        (Claim((Mention("cat", count=2),)), WINTER, False),
        (Claim((Mention("cat", "white"),)), WINTER, False),
        (Claim((Mention("cat", size="small"),)), WINTER, False),
        (Claim((Mention("dog"),)), WINTER, False),
        (Claim(time="night"), WINTER, False),
        (Claim(weather="snowfall", time="day"), WINTER, True),
        (Claim(weather="rain"), WINTER, False),
        (Claim((Mention("boat", "red"),), background="sea"), SHORE, True),
        (Claim((Mention("boat", "red"),), background="open sea"), SHORE, False),
        (Claim((Mention("boat", "red"),), background="beach"), SHORE, True),
    ],
)
def test_truth_of_things_places_and_skies(claim: Claim, scene: Scene, truth: bool) -> None:
    assert fits(claim, scene) is truth


@pytest.mark.parametrize(
    ("one", "name", "other", "truth"),
    [
        (CAT, "left of", HOUSE, True),
        (HOUSE, "right of", CAT, True),
        (HOUSE, "left of", CAT, False),
        (CAT, "left of", TREES, False),
        (CAT, "next to", HOUSE, True),
        (CAT, "next to", TREES, False),
        (TREES, "behind", CAT, True),
        (CAT, "in front of", TREES, True),
        (TREES, "above", CAT, False),
        (BIRD, "above", CAT, True),
        (CAT, "below", BIRD, True),
        (BIRD, "behind", CAT, False),
        (BIRD, "above", HOUSE, False),
    ],
)
def test_truth_of_relations(one: Thing, name: RelationName, other: Thing, truth: bool) -> None:
    assert holds(name, one, other) is truth


def test_a_relation_requires_its_things() -> None:
    """A cat left of a blue house is not a cat left of a red house."""
    relation = (Relation(0, "left of", 1),)
    assert fits(Claim((Mention("cat"), Mention("house", "blue")), relation), WINTER)
    assert not fits(Claim((Mention("cat"), Mention("house", "red")), relation), WINTER)


def test_what_cannot_be_drawn_cannot_be_claimed() -> None:
    with pytest.raises(UsageError):
        Mention("unicorn")
    with pytest.raises(UsageError):
        Mention("cat", "beige")
    with pytest.raises(UsageError):
        Mention("cat", count=9)
    with pytest.raises(UsageError):
        Claim(background="moon")
    with pytest.raises(UsageError):
        Claim(time="noon")
    with pytest.raises(UsageError):
        Claim(weather="fog")
    with pytest.raises(UsageError):
        Claim((Mention("cat"), Mention("cat", "black")))


def test_the_default_corpus_holds_answers_to_natural_queries() -> None:
    """A red boat on the sea, two trees in the snow, a cat left of a blue house."""
    scenes = [make_scene(0, number) for number in range(2000)]
    for claim in (
        Claim((Mention("boat", "red"),), background="sea"),
        Claim((Mention("tree", count=2),), background="snow"),
        Claim((Mention("cat"), Mention("house", "blue")), (Relation(0, "left of", 1),)),
    ):
        assert sum(fits(claim, scene) for scene in scenes) >= 5
