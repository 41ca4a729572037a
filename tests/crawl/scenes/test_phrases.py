from __future__ import annotations

from mmindex.crawl.scenes import RESERVED_SEED, captions, fits, make_scene
from mmindex.crawl.scenes.phrases import PHRASES_PER_SCENE, phrases


def test_every_phrase_is_true_of_its_scene_and_says_less_than_the_captions() -> None:
    lengths: list[int] = []
    for number in range(300):
        scene = make_scene(RESERVED_SEED + 11, number)
        written = phrases(scene)
        assert len(written) == PHRASES_PER_SCENE
        assert all(fits(phrase.claim, scene) for phrase in written)
        assert all(len(phrase.claim.objects) <= 2 for phrase in written)
        shorter = sum(len(phrase.text) for phrase in written) / PHRASES_PER_SCENE
        lengths.append(shorter < sum(len(caption.text) for caption in captions(scene)) / 5)
    assert sum(lengths) > 290


def test_phrases_are_the_same_on_every_run() -> None:
    scene = make_scene(RESERVED_SEED, 5)
    assert phrases(scene) == phrases(make_scene(RESERVED_SEED, 5))
