"""Zero-shot labels: probabilities, ties, the corpus and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mmindex.core import fonts
from mmindex.core.errors import CannotCreateError, DataError, NoInputError, UsageError
from mmindex.insight.classify import (
    Classifier,
    Prediction,
    classify_corpus,
    classify_files,
    logit_scale,
    report_on,
)
from mmindex.insight.labels import Label, label_vectors
from mmindex.insight.metrics import label_report
from mmindex.insight.truth import expand, known_truth
from mmindex.models.encoder import Encoder
from mmindex.pages.confusion import plot_confusion
from mmindex.search.vectorize import Vectorizer
from mmindex.store.snapshot import Snapshot, open_snapshot
from support.images import COLOURS, write_pngs
from support.models import FakeEncoder
from support.stores import (
    Side,
    captions_table,
    encode_files,
    images_table,
    key_of,
    make_store,
)

# For the fake encoder, Pillow's dark green (0, 128, 0) is black.
SEEN = ("red", "black", "blue", "white", "black")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_pngs(tmp_path / "p", 12)


@pytest.fixture
def published(tmp_path: Path, files: list[Path]) -> Snapshot:
    """Twelve images with their colour in a column, and a copy of the first under another name."""
    names = [f"folder/p/{path.name}" for path in files]
    data = [path.read_bytes() for path in files]
    rows = [(name, key_of(each), str(path)) for name, each, path in zip(names, data, files,
                                                                       strict=True)]  # fmt: skip
    images = images_table([*rows, ("twin", rows[0][1], "/twin")])
    colours = [COLOURS[n % 5] for n in range(12)]
    images = images.append_column("colour", pa.array([*colours, None], pa.string()))
    side = Side([key_of(each) for each in data], encode_files(FakeEncoder(), data))
    info = FakeEncoder().info
    make_store(tmp_path / "s", images, captions_table([]), {"image": side}, info, group_rows=5)
    return open_snapshot(tmp_path / "s")


@pytest.fixture
def classifier() -> Classifier:
    labels = tuple(Label(colour, (colour,)) for colour in COLOURS)
    vectors = label_vectors(labels, ("a {} thing", "{}"), FakeEncoder().encode_texts)
    return Classifier(COLOURS, vectors, 20.0)


def test_probabilities_are_the_softmax_of_scaled_cosines() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    order, shares = Classifier(("a", "b", "c"), vectors, 2.0).rank(
        np.array([[1, 0]], dtype=np.float32), 3
    )
    e = np.exp([2.0, 1.2, 0.0])
    assert order.tolist() == [[0, 2, 1]]
    assert shares[0] == pytest.approx(e / e.sum())


def test_equal_labels_come_in_the_lists_order() -> None:
    vectors = np.array([[0, 1], [1, 0], [1, 0]], dtype=np.float32)
    order, shares = Classifier(("a", "b", "c"), vectors, 1e9).rank(
        np.array([[1, 0], [0, 1]], dtype=np.float32), 2
    )
    assert order.tolist() == [[1, 2], [0, 1]]
    assert shares.tolist() == [[0.5, 0.5], [1.0, 0.0]]


def test_files_and_corpus_get_equal_labels(
    published: Snapshot, classifier: Classifier, files: list[Path]
) -> None:
    every = list(classify_corpus(published, classifier, 2, truth="colour", rows=None))
    assert [one.id for one in every][-1] == "twin"
    assert len(every) == 13
    assert [COLOURS[one.labels[0]] for one in every[:12]] == [SEEN[n % 5] for n in range(12)]
    assert [one.truth for one in every] == [*(COLOURS[n % 5] for n in range(12)), None]
    assert every[12].shares == every[0].shares
    vectorizer = Vectorizer(published, FakeEncoder)
    named = list(classify_files(vectorizer, classifier, [str(path) for path in files], 2))
    assert [one.labels for one in named] == [one.labels for one in every[:12]]
    assert [one.shares for one in named] == [
        pytest.approx(one.shares, abs=5e-3) for one in every[:12]
    ]


def test_a_condition_chooses_among_the_corpus(published: Snapshot, classifier: Classifier) -> None:
    rows = np.zeros(13, dtype=bool)
    rows[[3, 12]] = True
    told = list(classify_corpus(published, classifier, 1, truth=None, rows=rows))
    assert [one.id for one in told] == ["folder/p/00003.png", "twin"]


def test_a_file_that_is_not_an_image_says_so_in_its_place(
    published: Snapshot, classifier: Classifier, tmp_path: Path, files: list[Path]
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    vectorizer = Vectorizer(published, FakeEncoder)
    names = [str(files[1]), str(bad), "folder/p/00002.png"]
    told = list(classify_files(vectorizer, classifier, names, 1))
    assert [one.id for one in told] == names
    assert [one.error is None for one in told] == [True, False, True]
    assert "empty" in (told[1].error or "")


def test_new_images_are_encoded_together(
    published: Snapshot, classifier: Classifier, tmp_path: Path
) -> None:
    new = [str(path) for path in write_pngs(tmp_path / "new", 100, size=(20, 20))]
    encoder = FakeEncoder()
    told = list(classify_files(Vectorizer(published, lambda: encoder), classifier, new, 1))
    assert [COLOURS[one.labels[0]] for one in told] == [SEEN[n % 5] for n in range(100)]
    assert encoder.image_batches == [64, 36]


def test_an_unknown_column_names_those_that_are(
    published: Snapshot, classifier: Classifier
) -> None:
    with pytest.raises(UsageError, match="no such column") as error:
        list(classify_corpus(published, classifier, 1, truth="hue", rows=None))
    assert "colour" in error.value.hint


def test_the_report_counts_images_with_a_known_label() -> None:
    told = [
        Prediction("1", (0, 1), (0.6, 0.4), truth="a"),
        Prediction("2", (1, 0), (0.6, 0.4), truth="a"),
        Prediction("3", (0, 1), (0.6, 0.4), truth="unlisted"),
        Prediction("4", (0, 1), (0.6, 0.4)),
        Prediction("5", (), (), truth="a", error="gone"),
    ]
    report = report_on(told, ("a", "b"))
    assert (report.items, report.accuracy, report.top_k_accuracy) == (2, 0.5, 1.0)
    with pytest.raises(DataError, match="no image has a correct label"):
        report_on(told[2:], ("a", "b"))


def test_a_model_without_a_scale_names_the_option() -> None:
    assert logit_scale(FakeEncoder()) == 20.0

    class Bare:
        info = FakeEncoder().info

    bare: Encoder = Bare()  # type: ignore[assignment]
    with pytest.raises(UsageError, match="no logit scale") as error:
        logit_scale(bare)
    assert "`scale`" in error.value.hint


def test_the_scale_of_a_real_model_is_what_it_learnt(tiny_model) -> None:
    from mmindex.models.devices import place
    from mmindex.models.openclip import load_encoder
    from mmindex.models.resolve import resolve_model

    encoder = load_encoder(resolve_model(tiny_model.name, None), place("cpu"))
    assert logit_scale(encoder) == pytest.approx(1 / 0.07, rel=1e-5)  # CLIP's starting value


def test_truth_comes_from_a_column_a_folder_or_a_list(tmp_path: Path) -> None:
    told = [Prediction("/p/cat/1.jpg", (0,), (1.0,)), Prediction("x", (0,), (1.0,))]
    by_folder = known_truth("folder", drawn=True, images=["/p"], where=None)
    assert [one.truth for one in by_folder.given(told)] == ["cat", ""]
    listed = tmp_path / "t.csv"
    listed.write_text("image,label\nx,dog\n")
    by_list = known_truth(str(listed), drawn=False, images=None, where=None)
    assert [one.truth for one in by_list.given(told)] == [None, "dog"]
    assert known_truth("colour", drawn=False, images=None, where="a > 1").column == "colour"
    assert not known_truth(None, drawn=False, images=None, where=None).known
    for truth, drawn, images, where in (
        (None, True, None, None),
        ("colour", False, ["a.jpg"], None),
        ("folder", False, ["a.jpg"], "width > 1"),
    ):
        with pytest.raises(UsageError):
            known_truth(truth, drawn=drawn, images=images, where=where)


def test_a_folder_selects_its_images(tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "p" / "deep").mkdir()
    deep = tmp_path / "p" / "deep" / "x.JPG"
    deep.write_bytes(b"")
    (tmp_path / "p" / "notes.txt").write_text("")
    assert expand([str(tmp_path / "p"), "an/id"]) == [*map(str, files), str(deep), "an/id"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoInputError, match="no image files"):
        expand([str(tmp_path / "empty")])


def test_the_confusion_matrix_is_drawn_with_every_script(tmp_path: Path) -> None:
    labels = ("cat", "狗在草地上", "$x_1$ \x1b[2J", "a very long label that goes on and on")
    report = label_report(labels, np.array([0, 1, 2, 3, 3]), np.array([[0], [1], [0], [3], [2]]))
    path = tmp_path / "c.png"
    note = plot_confusion(report, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
    assert note == "" or "boxes" in note
    first = path.read_bytes()
    plot_confusion(report, path)
    assert path.read_bytes() == first


def test_letters_without_a_font_are_boxes_and_a_note_not_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning would fail the test, because pytest raises warnings as errors."""
    monkeypatch.setattr(fonts, "_FAMILIES", ())
    report = label_report(("cat", "狗"), np.array([0, 1]), np.array([[0], [1]]))
    note = plot_confusion(report, tmp_path / "c.png")
    assert "no installed font contains 1 of the characters (狗)" in note
    with Image.open(tmp_path / "c.png") as image:
        assert image.format == "PNG"


def test_a_matrix_that_cannot_be_drawn_or_written_is_an_error(tmp_path: Path) -> None:
    report = label_report(("a", "b"), np.array([0]), np.array([[0]]))
    with pytest.raises(CannotCreateError):
        plot_confusion(report, tmp_path / "none" / "c.png")
    many = label_report(tuple(map(str, range(201))), np.array([0]), np.array([[0]]))
    with pytest.raises(UsageError, match="201 labels"):
        plot_confusion(many, tmp_path / "c.png")
