"""Captions: true of their scene, different from each other, correct English."""

import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mmindex.scenes import LAST_SEED, Scene, captions, complete, fits, make_scene
from mmindex.scenes.scene import Lot
from mmindex.scenes.vocabulary import COLOURS, KINDS
from mmindex.scenes.words import DOING, NOUNS, SIZE_WORDS, joined, with_article

SCENES = st.builds(make_scene, st.integers(0, LAST_SEED), st.integers(0, 10**9))


@given(SCENES)
@settings(max_examples=200, deadline=None)
def test_five_different_captions_each_true_of_its_scene(scene: Scene) -> None:
    written = captions(scene)
    assert written == captions(scene)
    assert len({caption.text.lower().rstrip(".") for caption in written}) == 5
    assert all(fits(caption.claim, scene) for caption in written)


@given(SCENES)
@settings(max_examples=100, deadline=None)
def test_a_complete_caption_is_true_and_names_every_thing_with_its_colour(scene: Scene) -> None:
    claim = complete(scene, Lot("complete", scene.number)).claim
    assert fits(claim, scene)
    named = {(one.kind, one.colour, one.count) for one in claim.objects}
    assert named == {(one.kind, one.colour, one.count) for one in scene.things}
    assert claim.background is not None


def test_grammar_of_ten_thousand_captions() -> None:
    """Articles match the next sound, nouns match their numbers, and no word is repeated."""
    pairs = {pair for nouns in NOUNS.values() for pair in nouns if pair[0] != pair[1]}
    shades = [
        *COLOURS,
        "gray",
        "violet",
        *(word for words in SIZE_WORDS.values() for word in words),
    ]
    before = rf"(?:(?:{'|'.join(shades)}) )*"
    several = "|".join(noun for _, noun in pairs)
    single = "|".join(noun for noun, _ in pairs)
    one_of_many = re.compile(rf"\ban? {before}(?:{several})\b")
    many_of_one = re.compile(
        rf"\b(?:two|2|three|3|some|several|few|pair of) {before}(?:{single})\b"
    )
    for number in range(2000):
        for caption in captions(make_scene(21, number)):
            text = caption.text.lower()
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text
            assert not re.search(r"  | ,|\{|\}|\.\.|,,", text), text
            assert all(a != b for a, b in pairwise(re.findall(r"[a-z0-9-]+", text))), text
            assert not one_of_many.search(text), text
            assert not many_of_one.search(text), text


def test_captions_say_colours_counts_relations_places_and_skies_and_leave_them_out() -> None:
    claims = [c.claim for number in range(400) for c in captions(make_scene(22, number))]
    mentions = [mention for claim in claims for mention in claim.objects]
    for told in (
        [mention.colour is not None for mention in mentions],
        [mention.size is not None for mention in mentions],
        [mention.count != 1 for mention in mentions],
        [bool(claim.relations) for claim in claims],
        [claim.background is not None for claim in claims],
        [claim.time is not None for claim in claims],
    ):
        assert 0.03 < sum(told) / len(told) < 0.97


def test_the_words_of_natural_queries_are_words_of_captions() -> None:
    spoken = set()
    for number in range(3000):
        for caption in captions(make_scene(23, number)):
            spoken.update(re.findall(r"[a-z0-9-]+", caption.text.lower()))
    for query in ("a red boat on the sea", "two trees in the snow", "a cat left of a blue house"):
        assert set(query.split()) <= spoken


def test_every_kind_has_its_nouns() -> None:
    assert set(NOUNS) == set(KINDS)
    assert set(DOING) <= set(KINDS)


def test_articles_and_lists() -> None:
    assert with_article("umbrella") == "an umbrella"
    assert with_article("red umbrella") == "a red umbrella"
    assert joined(["a"]) == "a"
    assert joined(["a", "b"]) == "a and b"
    assert joined(["a", "b", "c"]) == "a, b and c"
