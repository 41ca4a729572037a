"""The best possible recall compared with galleries computed by hand and by brute force."""

import pytest

from mmindex.core.errors import UsageError
from mmindex.scenes import captions, ceiling, fits, make_scene
from mmindex.scenes.ceiling import Recalls, ceiling_of, matching_scenes


def test_two_equal_scenes_leave_half_of_the_first_places() -> None:
    """All ten captions fit both images: the own image is first in 1 of 2 cases; 5 of 10 are own."""
    scene = make_scene(3, 1)
    result = ceiling_of([scene, scene])
    assert (result.images, result.captions, result.ambiguous_captions) == (2, 10, 10)
    assert result.mean_fits == 2
    assert result.text_to_image == Recalls(50.0, 100.0, 100.0)
    assert result.image_to_text.at_1 == pytest.approx(50.0)
    assert result.image_to_text.at_5 == pytest.approx(100 * (1 - 1 / 252))  # 10 over 5 is 252
    assert result.image_to_text == result.image_to_text_blind


def test_one_scene_alone_is_always_found() -> None:
    result = ceiling(3, 1)
    assert result.text_to_image == result.image_to_text == Recalls(100.0, 100.0, 100.0)


def test_the_fast_search_equals_the_search_over_all_pairs() -> None:
    gallery = tuple(make_scene(4, number) for number in range(150))
    claims = [caption.claim for scene in gallery for caption in captions(scene)]
    slow = [[row for row, scene in enumerate(gallery) if fits(claim, scene)] for claim in claims]
    assert matching_scenes(claims, gallery) == slow


def test_a_thousand_scenes_leave_room_above_the_required_recall() -> None:
    """The shipped model must reach 35 and 85 (text to image), 45 and 90 (image to text)."""
    result = ceiling(5, 1000)
    assert 80 < result.text_to_image.at_1 < 97
    assert result.text_to_image.at_1 < result.text_to_image.at_5 < result.text_to_image.at_10
    assert result.text_to_image.at_10 > 97
    assert result.image_to_text.at_1 > result.image_to_text_blind.at_1 > 60
    assert result.image_to_text_blind.at_10 > 97


def test_an_empty_gallery_has_no_ceiling() -> None:
    with pytest.raises(UsageError):
        ceiling_of([])
