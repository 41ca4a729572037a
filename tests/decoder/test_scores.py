"""Metrics: equal to the reference implementations, and to answers computed by hand."""

from __future__ import annotations

import math

import pytest

from mmindex.core.errors import DataError
from mmindex.decoder.facts import score_facts, stated_facts, true_facts
from mmindex.decoder.scores import (
    cider_d,
    plain_answer,
    rouge_l,
    score_captions,
    vqa_accuracy,
    words_of,
)
from mmindex.scenes import captions, make_scene

SCENES = [make_scene(5, number) for number in range(60)]


def test_metrics_equal_those_of_pycocoevalcap():
    bleu_module = pytest.importorskip("pycocoevalcap.bleu.bleu")
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    known = {n: [" ".join(words_of(c.text)) for c in captions(s)[1:]] for n, s in enumerate(SCENES)}
    # A third are captions of the scene itself, the others of the next ones.
    said = {n: [" ".join(words_of(captions(make_scene(5, n + n % 3))[0].text))] for n in known}
    found = score_captions([said[n][0] for n in known], [known[n] for n in known])
    assert found.cider == pytest.approx(Cider().compute_score(known, said)[0], rel=1e-9)
    assert found.rouge == pytest.approx(Rouge().compute_score(known, said)[0], rel=1e-9)
    bleus = bleu_module.Bleu(4).compute_score(known, said, verbose=0)[0]
    assert found.bleu == pytest.approx(bleus, rel=1e-6)


def test_rouge_by_hand():
    # Longest common subsequence "a b d": precision 3/4, recall 3/3.
    expected = (1 + 1.44) * 0.75 * 1 / (1 + 1.44 * 0.75)
    assert rouge_l(("a", "b", "c", "d"), [("a", "b", "d")]) == pytest.approx(expected)
    assert rouge_l((), [("a",)]) == 0


def test_cider_is_ten_for_the_reference_itself_and_zero_for_nothing():
    texts = [("a", "b", "c", "d"), ("e", "f", "g", "h")]
    assert cider_d(texts, [[one] for one in texts]) == pytest.approx(10)
    assert cider_d([(), ()], [[one] for one in texts]) == 0
    assert not math.isnan(cider_d([("a",)], [[("a",)]]))


def test_repetitions_are_counted():
    found = score_captions(["a red boat, a red boat", "a red boat"], [["a boat"], ["a boat"]])
    assert found.repeated == 0.5


def test_chinese_characters_are_words():
    assert words_of("一只红船 on 2 boats") == ("一", "只", "红", "船", "on", "2", "boats")


def test_metrics_need_references():
    for texts, references in (([], []), (["a"], [[]])):
        with pytest.raises(DataError):
            score_captions(texts, references)


@pytest.mark.parametrize(
    ("text", "plain"),
    [("Two Boats.", "2 boats"), ("the  cat!", "cat"), ("1,000", "1000"), ("don't", "dont"),
     ("None", "0"), ("a", ""), ("3.5", "3.5"), ("x-ray", "x ray")],
)  # fmt: skip
def test_answers_are_compared_in_plain_form(text, plain):
    assert plain_answer(text) == plain


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1)])
def test_vqa_accuracy_of_ten_people(matches, accuracy):
    people = ["two"] * matches + ["no"] * (10 - matches)
    assert vqa_accuracy("2", people) == pytest.approx(accuracy)


def test_captions_of_scenes_state_only_facts():
    for scene in SCENES:
        true = true_facts(scene)
        for caption in captions(scene):
            stated = stated_facts(caption.text)
            assert stated.objects == {(one.kind,) for one in caption.claim.objects}
            assert stated.attributes <= true.attributes
            assert stated.relations <= true.relations
            assert len(stated.relations) == len(caption.claim.relations)


def test_facts_by_hand():
    scene = make_scene(5, 0)
    perfect = score_facts(["nothing"], [scene])
    assert {one.f1 for one in perfect.values()} == {0}
    said = stated_facts("a person in a red shirt and two small blue cars left of the sun")
    assert said.objects == {("person",), ("car",), ("sun",)}
    assert ("person", "colour", "red") in said.attributes
    assert ("car", "count", "2") in said.attributes
    assert said.relations == {("car", "left of", "sun")}
