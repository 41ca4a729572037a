"""The first commands of a new user: drawn scenes and the embedded model."""

import pytest

from mmindex.scenes import Claim, Mention, fits, make_scene
from support.command import mmindex, mmindex_json

SEED = 20_261  # below 2**32, so the model has never seen it


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    store = tmp_path_factory.mktemp("scenes") / "store"
    mmindex("build", "--store", store, "--source", f"scenes:300@{SEED}")
    return store


def test_unseen_scenes_are_found_both_ways_and_the_ceiling_is_reported(scenes):
    """300 scenes are fewer than the 1,000 in the model's README, so recall is higher."""
    (figures,) = mmindex_json("evaluate", "--store", scenes)
    assert (figures["images"], figures["captions"]) == (300, 1500)
    assert figures["trained"]
    to_image, to_text = figures["text_to_image"], figures["image_to_text"]
    assert to_image["r@1"] >= 70
    assert to_image["r@10"] >= 95
    assert to_text["r@1"] >= 85
    assert to_text["r@10"] >= 97
    best = figures["ceiling"]
    for direction in ("text_to_image", "image_to_text"):
        for depth in ("r@1", "r@5", "r@10"):
            assert figures[direction][depth] <= best[direction][depth] + 1 <= 101


@pytest.mark.parametrize(
    ("question", "claim"),
    [
        ("a red boat on the sea", Claim((Mention("boat", "red"),), background="sea")),
        ("a castle", Claim((Mention("castle"),))),
        ("a snowman", Claim((Mention("snowman"),))),
    ],
)
def test_a_plain_query_gets_a_scene_that_fits(scenes, question, claim):
    every = [number for number in range(300) if fits(claim, make_scene(SEED, number))]
    assert every, "the corpus has no such scene: choose another question"
    (answer,) = mmindex_json("query", question, "--store", scenes, "-k", 4)
    found = [int(hit["id"].rpartition("/")[2]) for hit in answer["hits"]]
    assert set(found) & set(every)
