"""VQA: files of questions and answers, normalised answers, and the accuracy."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

from mmindex.core.errors import DataError, NoInputError
from mmindex.decoder.tasks import Task, after, number_of
from mmindex.decoder.vqa import (
    accuracy,
    compare,
    normalised,
    read_annotations,
    read_questions,
)

QUESTION = {"question_id": 1, "image_id": 9, "question": "how many?"}
ANNOTATION = {
    "question_id": 1,
    "image_id": 9,
    "question_type": "how many",
    "answer_type": "number",
    "multiple_choice_answer": "2",
    "answers": [{"answer": "2", "answer_confidence": "yes", "answer_id": 1}],
}


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("The  two dogs.", "2 dogs"),
        ("A\nCat\t", "cat"),
        ("none", "0"),
        ("ten", "10"),
        ("yes!", "yes"),
        ("black-and-white", "black and white"),
        ("black - white", "black white"),
        ("1,000", "1000"),
        ("1,000 a/b", "1000 ab"),
        ("2.5 m.", "2.5 m"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("oclock", "o'clock"),
        ("it's", "it's"),
        ("红色", "红色"),
        ("", ""),
        ("the", ""),
    ],
)
def test_answers_are_compared_in_one_form(answer: str, form: str) -> None:
    assert normalised(answer) == form
    assert normalised(form) == form


def by_definition(answer: str, given: list[str]) -> float:
    sets = list(combinations(given, len(given) - 1))
    return sum(min(one.count(answer) / 3, 1) for one in sets) / len(sets)


@pytest.mark.parametrize("same", range(11))
def test_an_answer_is_as_right_as_people_gave_it(same: int) -> None:
    given = ["a"] * same + ["b"] * (10 - same)
    assert accuracy("a", given) == pytest.approx(by_definition("a", given))
    expected = [0, 0.3, 0.6, 0.9, 1.0]
    assert accuracy("a", given) == pytest.approx(expected[min(same, 4)])


def test_with_one_answer_it_must_be_equal() -> None:
    assert accuracy("a", ["a"]) == 1.0
    assert accuracy("a", ["b"]) == 0.0


def test_files_in_the_format_of_vqa_are_read(tmp_path: Path) -> None:
    extra = {"info": {}, "license": {}, "data_type": "mscoco"}
    questions = read_questions(write(tmp_path / "q", {"questions": [QUESTION], **extra}))
    assert [(one.image_id, one.question) for one in questions] == [(9, "how many?")]
    known = read_annotations(write(tmp_path / "a", {"annotations": [ANNOTATION], **extra}))
    assert known["1"].given == ["2"]
    assert (known["1"].question_type, known["1"].answer_type) == ("how many", "number")


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"questions": []},
        {"questions": [QUESTION, QUESTION]},
        {"questions": [{"question_id": 1, "question": "no image"}]},
        {"questions": [{**QUESTION, "question": 3}]},
    ],
)
def test_a_damaged_file_of_questions_is_an_error(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError):
        read_questions(write(tmp_path / "q", value))


@pytest.mark.parametrize(
    "value",
    [
        {"annotations": [ANNOTATION, ANNOTATION]},
        {"annotations": [{**ANNOTATION, "answers": []}]},
        {"annotations": [{**ANNOTATION, "answers": "2"}]},
        {"questions": [QUESTION]},
    ],
)
def test_damaged_annotations_are_an_error(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError):
        read_annotations(write(tmp_path / "a", value))


def test_a_file_that_is_cut_or_missing_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "q", {"questions": [QUESTION]})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="truncated"):
        read_questions(path)
    with pytest.raises(NoInputError):
        read_questions(tmp_path / "none")


def annotations(tmp_path: Path, answers: dict[str, tuple[str, str]]) -> Path:
    rows = [
        {"question_id": name, "question_type": kind, "answers": [{"answer": answer}] * 10}
        for name, (kind, answer) in answers.items()
    ]
    return write(tmp_path / "a", {"annotations": rows})


def test_answers_are_compared_with_both_guesses(tmp_path: Path) -> None:
    known = read_annotations(annotations(tmp_path, {
        "1": ("how", "2"), "2": ("how", "2"), "3": ("how", "three"), "4": ("is", "yes"),
    }))  # fmt: skip
    answers = {"1": "two", "2": "3", "3": "3", "9": "unknown"}
    blind = {"1": "2", "2": "1", "3": "1", "9": ""}
    report = compare(answers, blind, known, asked=5)
    overall = report.overall
    assert (overall.asked, report.left_out) == (3, 2)
    assert overall.decoder == pytest.approx(2 / 3)
    assert overall.majority == pytest.approx(2 / 3)
    assert overall.blind == pytest.approx(1 / 3)
    assert report.by_question == {"how": overall}
    assert report.by_answer == {"all": overall}
    with pytest.raises(DataError, match="no question"):
        compare({"9": "x"}, {"9": "x"}, known, asked=1)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("coco/val2017/000000000139", 139),
        ("COCO_val2014_000000000042", 42),
        ("folder/img_12.jpg", 12),
        ("folder/image", None),
        ("scenes/0", 0),
        ("9" * 18, int("9" * 18)),
        ("img_12345678901234567890", None),
        ("9" * 40, None),
        ("a12\n", None),
    ],
)
def test_the_number_of_an_image_is_at_the_end_of_its_id(name: str, number: int | None) -> None:
    assert number_of(name) == number


@pytest.mark.parametrize("done", range(7))
def test_tasks_go_on_after_any_prompt(done: int) -> None:
    tasks = [Task("a", "a", ("1", "2", "3"), ("x", "y", "z")), Task("b", "b", ()),
             Task("c", "c", ("4",)), Task("d", "d", ("5", "6"), ("u", "v"))]  # fmt: skip
    rest = list(after(iter(tasks), done))
    assert [prompt for task in rest for prompt in task.prompts] == list("123456"[done:])
    assert all(len(task.names) in (0, len(task.prompts)) for task in rest)
