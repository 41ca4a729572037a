"""Scenes as data: deterministic, plausible, with guaranteed properties."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmindex.core.errors import UsageError
from mmindex.scenes import LAST_SEED, RESERVED_SEED, Scene, captions, make_scene
from mmindex.scenes.scene import box_of
from mmindex.scenes.vocabulary import BACKGROUNDS, COLOURS, KINDS, SIZE_PX

SEEDS = st.integers(0, LAST_SEED)
NUMBERS = st.integers(0, 10**9)


def sample(count: int = 1500) -> list[Scene]:
    return [make_scene(11, number) for number in range(count)]


def test_scenes_and_captions_of_version_1_never_change() -> None:
    """If this digest changes, increase SCENES_VERSION and train the weights again."""
    digest = hashlib.sha256()
    for number in range(2000):
        scene = make_scene(RESERVED_SEED + 1, number)
        digest.update(repr((scene, captions(scene))).encode())
    assert digest.hexdigest() == "bff3ae810832a9881c067e62147b6d7f0924a9dad9824bc88725b7f6c3f31cfb"


def test_the_language_has_at_least_the_promised_variety() -> None:
    assert len(KINDS) >= 24
    assert len(COLOURS) >= 8
    assert len(BACKGROUNDS) >= 6


@given(SEEDS, NUMBERS)
@settings(max_examples=150, deadline=None)
def test_every_scene_is_valid(seed: int, number: int) -> None:
    """1 to 4 objects of different kinds, each in an allowed place and completely in the image."""
    scene = make_scene(seed, number)
    assert scene == make_scene(seed, number)
    assert 1 <= len(scene.things) <= 4
    assert len({thing.kind for thing in scene.things}) == len(scene.things)
    background = BACKGROUNDS[scene.background]
    for thing in scene.things:
        kind = KINDS[thing.kind]
        assert background.lanes[thing.lane].type == thing.lane_type
        assert thing.lane_type in kind.lanes
        assert thing.colour in kind.colours
        assert not kind.backgrounds or scene.background in kind.backgrounds
        assert not kind.skies or (scene.time, scene.weather) in kind.skies
        assert 1 <= thing.count <= kind.most
        for spot in thing.spots:
            left, top, right, bottom = box_of(kind, thing.size, thing.lane_type, spot)
            assert left >= 0
            assert top >= 0
            assert right <= SIZE_PX
            assert bottom <= SIZE_PX


def test_every_kind_background_colour_and_sky_occurs() -> None:
    scenes = sample()
    assert {thing.kind for scene in scenes for thing in scene.things} == set(KINDS)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {thing.colour for scene in scenes for thing in scene.things} == set(COLOURS)
    skies = Counter((scene.time, scene.weather) for scene in scenes)
    assert len(skies) == 8


def test_another_seed_is_another_corpus() -> None:
    assert not {repr(s.things) for s in sample(200)} & {
        repr(make_scene(12, number).things) for number in range(200)
    }


@pytest.mark.parametrize(("seed", "number"), [(-1, 0), (0, -1), (LAST_SEED + 1, 0)])
def test_a_seed_or_number_out_of_range_is_refused(seed: int, number: int) -> None:
    with pytest.raises(UsageError):
        make_scene(seed, number)
