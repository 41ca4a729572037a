"""Labels, templates and their ensembles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.insight.labels import TEMPLATES, Label, find_templates, label_vectors, read_labels
from mmindex.insight.pairs import Pair, read_pairs, read_truth
from support.models import FakeEncoder


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_label_is_a_line_and_can_have_its_own_words(tmp_path: Path) -> None:
    path = write(tmp_path / "l.txt", "\ufeffcat\r\n\n狗\tdog|puppy\nbus\n")
    assert read_labels(path) == (
        Label("cat", ("cat",)),
        Label("狗", ("dog", "puppy")),
        Label("bus", ("bus",)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\n", "1 labels"),
        ("a\nb\na\n", "3: the label 'a' occurs twice"),
        ("a\nb\t | \n", "2: a label without words"),
        (b"a\n\xff\n", "2: not UTF-8"),
    ],
)
def test_a_damaged_list_of_labels_names_its_line(tmp_path, text, message) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(write(tmp_path / "l.txt", text))


def test_a_missing_list_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(NoInputError):
        read_labels(tmp_path / "none.txt")


def test_templates_are_selected_by_name_or_file(tmp_path: Path) -> None:
    assert find_templates("plain") == ("{}",)
    assert all("{}" in template for each in TEMPLATES.values() for template in each)
    path = write(tmp_path / "t.txt", "a {} here\n\n{} and {}\n")
    assert find_templates(str(path)) == ("a {} here", "{} and {}")
    with pytest.raises(UsageError, match="photo, drawing, plain"):
        find_templates("nothing")
    with pytest.raises(UsageError, match=r"does not contain \{\}"):
        find_templates(str(write(tmp_path / "bad.txt", "a cat\n")))


def test_the_vector_of_a_label_is_the_mean_over_templates_and_words() -> None:
    """CLIP's ensemble: the mean of unit vectors, scaled to length 1."""
    encoder = FakeEncoder()
    labels = (Label("red", ("red", "crimson")), Label("blue", ("blue",)))
    vectors = label_vectors(labels, ("a {}", "the {}"), encoder.encode_texts)
    for vector, texts in zip(
        vectors, (["a red", "the red", "a crimson", "the crimson"], ["a blue", "the blue"]),
        strict=True,
    ):  # fmt: skip
        mean = encoder.encode_texts(texts).mean(axis=0)
        assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_words_with_braces_are_words() -> None:
    said: list[str] = []

    def encode(texts: Sequence[str]) -> np.ndarray:
        said.extend(texts)
        return FakeEncoder().encode_texts(texts)

    label_vectors((Label("x", ("{0} %s",)),), ("a {}.",), encode)
    assert said == ["a {0} %s."]


def test_a_label_whose_texts_cancel_out_is_refused() -> None:
    def encode(texts: Sequence[str]) -> np.ndarray:
        return np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32)[: len(texts)]

    with pytest.raises(DataError, match="no usable vector for the label 'x'"):
        label_vectors((Label("x", ("a", "b")),), ("{}",), encode)


PAIRS = (Pair("a.jpg", 'a "red", bus', True), Pair("id/1", "一只猫", False))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", '\ufeffimage,text,label\r\na.jpg,"a ""red"", bus",1\r\nid/1,一只猫,no\r\n'),
        ("p.tsv", 'label\timage\ttext\nTrue\ta.jpg\ta "red", bus\nunmatched\tid/1\t一只猫\n'),
        (
            "p.jsonl",
            '{"image": "a.jpg", "text": "a \\"red\\", bus", "label": true, "more": 1}\n\n'
            '{"image": "id/1", "text": "一只猫", "label": 0}\n',
        ),
    ],
)
def test_pairs_can_have_three_forms(tmp_path: Path, name: str, text: str) -> None:
    assert read_pairs(write(tmp_path / name, text)) == PAIRS


def test_images_beside_the_list_are_found_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    pairs = read_pairs(write(tmp_path / "p.csv", "image,text,label\na.jpg,x,1\nb.jpg,x,1\n"))
    assert [pair.image for pair in pairs] == [str(tmp_path / "a.jpg"), "b.jpg"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "image,text\na,b\n", "1: the header lacks label"),
        ("p.csv", "image,text,label\na,b\n", "2: 2 columns, but the header has 3"),
        ("p.csv", 'image,text,label\n"a,b,1\n', "unexpected end"),
        ("p.csv", "image,text,label\na,b,perhaps\n", "2: the label 'perhaps' is not recognised"),
        ("p.csv", "image,text,label\n", "no pairs"),
        ("p.csv", "", "no pairs"),
        ("p.tsv", b"image\ttext\tlabel\n\xff\tb\t1\n", "2: not UTF-8"),
        ("p.jsonl", "{}\n", "1: not an object with image, text, label"),
        ("p.jsonl", "[" * 100_000, "1: not JSON"),
        ("p.jsonl", '{"image": 1, "text": "a", "label": 1}', "1: image, text, label must be text"),
    ],
)
def test_a_damaged_list_of_pairs_names_its_line(tmp_path, name, text, message) -> None:
    with pytest.raises(DataError, match=message):
        read_pairs(write(tmp_path / name, text))


def test_a_list_of_another_kind_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"one of \.csv, \.tsv, \.jsonl"):
        read_pairs(write(tmp_path / "p.xlsx", ""))


def test_an_image_has_one_correct_label(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "image,label\na,cat\na,cat\nb,dog\n")
    assert read_truth(path) == {"a": "cat", "b": "dog"}
    with pytest.raises(DataError, match="3: a has another label in an earlier line"):
        read_truth(write(tmp_path / "u.csv", "image,label\na,cat\na,dog\n"))
