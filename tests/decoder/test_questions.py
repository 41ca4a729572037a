"""Questions about scenes: answered by the ground truth, and the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmindex.decoder.batches import QUESTIONS_EACH, batch_of
from mmindex.decoder.measure import HELD_OUT, majority, questions_about
from mmindex.decoder.questions import QUESTIONS, TASKS, Asked, ask
from mmindex.decoder.words import learn_words
from mmindex.scenes import Scene, Spot, Thing, make_scene
from mmindex.scenes.scene import Lot

SCENES = [make_scene(7, number) for number in range(60)]
FARM = Scene(1, 2, "meadow", "day", "rain", 0, (
    Thing("cat", "black", "small", 2, "ground", (Spot(40.0, 200.0, False),)),
    Thing("cow", "brown", "medium", 2, "ground",
          (Spot(120.0, 200.0, False), Spot(190.0, 200.0, True))),
))  # fmt: skip


LISTED = ("a cat and two cows", "nothing", "a black cat and two brown cows", "brown and black")


def answers(name):
    return {
        (one.prompt, one.answer)
        for number in range(300)
        if (one := QUESTIONS[name](FARM, Lot("test", number))) is not None
    }


def test_answers_are_those_of_the_ground_truth():
    assert ("how many cows are there", "2") in answers("count")
    assert ("what colour is the cat", "black") in answers("colour")
    assert {answer for _, answer in answers("place")} == {"meadow"}
    assert {answer for _, answer in answers("time")} == {"day"}
    assert {answer for _, answer in answers("weather")} == {"rain"}
    assert ("are the cows left or right of the cat", "right") in answers("side")
    assert ("is the cat left or right of the cows", "left") in answers("side")
    assert ("is there a black cat", "yes") in answers("yes/no")
    assert ("is there a white cat", "no") in answers("yes/no")


@pytest.mark.parametrize(
    ("task", "answer"),
    list(zip(TASKS, LISTED, strict=True)),
)
def test_tasks_list_what_there_is(task, answer):
    assert task[2](FARM) == answer


def test_yes_is_about_as_frequent_as_no():
    told = [QUESTIONS["yes/no"](scene, Lot("x", n)).answer for scene in SCENES for n in range(20)]
    assert 0.4 < told.count("yes") / len(told) < 0.7


@pytest.mark.parametrize(
    ("x", "part"), [(1, "left"), (74, "left"), (112, "middle"), (223, "right")]
)
def test_the_part_is_a_third_of_the_width(x, part):
    tree = Thing("tree", "green", "small", 2, "ground", (Spot(float(x), 200.0, False),))
    asked = QUESTIONS["part"](replace(FARM, things=(tree,)), Lot("part"))
    assert (asked.prompt.split()[-1], asked.answer) == ("tree", part)


def test_a_group_has_no_part():
    cows = replace(FARM, things=FARM.things[1:])
    assert QUESTIONS["part"](cows, Lot("part")) is None


def test_a_step_depends_on_seed_and_number_alone():
    vocabulary = learn_words(
        text for scene in SCENES for n in range(30) for one in [ask(scene, Lot(n))]
        for text in (one.prompt, one.answer)
    )  # fmt: skip
    one, two = (batch_of(SCENES[:8], vocabulary, 3, 5) for _ in range(2))
    assert one.tokens.equal(two.tokens)
    assert not one.tokens.equal(
        batch_of(SCENES[:8], vocabulary, 3, 6).tokens[:, : one.tokens.shape[1]]
    )
    assert ((one.tokens == 1).sum(dim=1) == QUESTIONS_EACH + 1).all()  # each begins with a start


def test_measured_tasks_have_wordings_that_are_not_trained():
    new = {one.prompt for one in questions_about(FARM) if one.type == HELD_OUT}
    trained = {wording for wordings, _, _ in TASKS for wording in wordings}
    assert len(new) == len(TASKS)
    assert not new & trained


def test_the_majority_is_by_type():
    asked = [Asked("a", "?", "x"), Asked("a", "?", "x"), Asked("a", "?", "y"), Asked("b", "?", "z")]
    assert majority(asked) == {"a": "x", "b": "z"}
