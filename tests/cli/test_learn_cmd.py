"""``classify --learn``: labels from a few images, their file, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click.testing
import pytest
from typer.testing import CliRunner

from mmindex.insight.labels import Label
from mmindex.insight.learning import zero_shot
from mmindex.models.encoder import Encoder
from mmindex.search import vectorize
from mmindex.search.vectorize import Vectorizer
from mmindex.store.snapshot import open_snapshot
from mmindex_cli.app import app
from support.images import COLOURS, write_pngs
from support.models import FakeEncoder
from support.stores import image_store

COUNT = 40
# The fake encoder knows colours by their names, not by these.
STRANGE = {"red": "rouge", "green": "sombre", "blue": "bleu", "white": "blanc", "black": "noir"}
HOSTILE = "=cmd \x1b[2J \u202e <b>"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty images, eight of each colour; green is dark enough to be black for the encoder."""
    paths = write_pngs(tmp_path / "pictures", COUNT)
    images = {f"folder/{path.name}": path for path in paths}
    image_store(tmp_path / "store", images, [(next(iter(images)), "a square")], FakeEncoder())

    def load(*_arguments: object) -> Encoder:
        return FakeEncoder()

    monkeypatch.setattr(vectorize, "_load", load)
    monkeypatch.setenv("MMINDEX_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


def table(path: str, rows: Sequence[tuple[str, str]], header: str = "image,label") -> str:
    lines = [header, *(f'{image},"{label}"' for image, label in rows)]
    Path(path).write_text("\n".join(lines) + "\n")
    return path


def shots(*, per_label: int = 6, names: dict[str, str] = STRANGE) -> list[tuple[str, str]]:
    """Return rows for the first images of red, blue and white, by path, id and id."""
    rows = []
    for number in range(COUNT):
        colour = COLOURS[number % 5]
        if colour in {"red", "blue", "white"} and number // 5 < per_label:
            image = f"{number:05d}.png"
            rows.append((f"pictures/{image}" if colour == "red" else f"folder/{image}",
                         names[colour]))  # fmt: skip
    return rows


def run(*arguments: str, code: int = 0) -> click.testing.Result:
    done = CliRunner().invoke(app, ["classify", *arguments])
    assert done.exit_code == code, done.output
    return done


def learned(*arguments: str) -> dict[str, object]:
    done = run("--learn", *arguments, "--out", "l.safetensors", "--format", "json")
    [record] = [json.loads(line) for line in done.stdout.splitlines()]
    return record  # type: ignore[no-any-return]


def test_strange_labels_are_learned_and_then_used() -> None:
    record = learned(table("shots.csv", shots()))
    assert record["method"] in {"probe", "tip-adapter"}
    assert (record["labels"], record["images"]) == (3, 18)
    accuracies = {one["method"]: one["accuracy"] for one in record["methods"]}  # type: ignore[attr-defined]
    assert accuracies[record["method"]] > accuracies["zero-shot"]
    assert record["fingerprint"] == FakeEncoder().info.fingerprint
    assert "context" in record["not_tried"]  # type: ignore[operator]
    unseen = [f"folder/{number:05d}.png" for number in (35, 37, 38)]
    done = run(*unseen, "--labels", "l.safetensors", "--format", "json")
    told = [json.loads(line)["labels"][0]["label"] for line in done.stdout.splitlines()]
    assert told == ["rouge", "bleu", "blanc"]


def test_labels_that_the_model_knows_stay_zero_shot() -> None:
    same = {colour: colour for colour in COLOURS}
    record = learned(table("shots.csv", shots(names=same)), "--templates", "plain")
    assert record["method"] == "zero-shot"


def test_a_file_of_labels_gives_words_and_their_order() -> None:
    Path("labels.txt").write_text("blanc\twhite\nROUGE\tred\nbleu\tblue\n")
    record = learned(table("shots.csv", shots()), "--labels", "labels.txt")
    assert record["labels"] == 3
    done = run("folder/00035.png", "--labels", "l.safetensors", "-k", "3", "--format", "json")
    assert json.loads(done.stdout)["labels"][0]["label"] == "ROUGE"


def test_what_was_learned_is_shown() -> None:
    path = table("shots.tsv", [])
    Path(path).write_text("id\tlabel\n" + "".join(f"{i}\t{n}\n" for i, n in shots()))
    text = run("--learn", path, "--out", "l.safetensors").stdout
    assert "zero-shot" in text
    assert "chosen" in text
    assert "3 labels from 18 images" in text
    rows = run("--learn", path, "--out", "l.safetensors", "--format", "tsv").stdout.splitlines()
    assert rows[0].split("\t") == ["method", "accuracy", "chosen"]
    assert len(rows) == 4


def test_hostile_labels_are_kept_and_inert() -> None:
    rows = shots(names={"red": HOSTILE, "blue": "狗" * 500, "white": "b|c"})
    learned(table("shots.csv", rows))
    done = run("folder/00035.png", "--labels", "l.safetensors", "-k", "3")
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    cells = run("folder/00035.png", "--labels", "l.safetensors", "--format", "tsv").stdout
    assert "\t'=cmd \\x1b" in cells


def test_the_same_image_twice_counts_once() -> None:
    rows = shots()
    record = learned(table("shots.csv", [*rows, ("folder/00000.png", "rouge")]))
    assert record["images"] == len(rows)


def test_a_label_without_images_is_refused() -> None:
    Path("labels.txt").write_text("rouge\nbleu\nblanc\nvert\n")
    done = run("--learn", table("s.csv", shots()), "--labels", "labels.txt", "--out",
               "l.safetensors", code=65)  # fmt: skip
    assert "no image for 1 of 4 labels, for example 'vert'" in done.stderr
    assert not Path("l.safetensors").exists()


def test_a_label_that_is_not_listed_is_refused() -> None:
    Path("labels.txt").write_text("rouge\nbleu\n")
    done = run("--learn", table("s.csv", shots()), "--labels", "labels.txt", "--out",
               "l.safetensors", code=65)  # fmt: skip
    assert "has the label 'blanc', which is not among the labels" in done.stderr


@pytest.mark.parametrize(
    ("rows", "code", "message"),
    [
        ([], 65, "0 labels"),
        ([("folder/00000.png", "one")], 65, "1 labels"),
        ([("folder/00000.png", "a"), ("folder/99999.png", "b")], 66, "no such file"),
        ([("folder/00000.png", "a"), ("bad.jpg", "b"), ("bad.png", "b")], 65, "and 1 more"),
        ([("folder/00000.png", "a"), ("folder/00000.png", "b")], 65, "another label"),
        ([("folder/00000.png", "a"), ("folder/00001.png", " ")], 65, "no label"),
        ([("folder/00000.png", "a"), ("", "b")], 65, "no image"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    rows: list[tuple[str, str]], code: int, message: str
) -> None:
    for name in ("bad.jpg", "bad.png"):
        Path(name).write_bytes(b"no image")
    done = run("--learn", table("s.csv", rows), "--out", "l.safetensors", code=code)
    assert message in done.stderr
    assert not Path("l.safetensors").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--out", "l.safetensors"),
        ("--labels", "labels.txt", "--out", "l.safetensors"),
        ("--learn", "s.csv"),
        ("--learn", "s.csv", "--out", "l.json"),
        ("--learn", "s.csv", "--out", "l.safetensors", "pictures"),
        ("--learn", "s.csv", "--out", "l.safetensors", "--truth", "folder"),
        ("--learn", "s.csv", "--out", "l.safetensors", "-k", "2"),
        ("--learn", "s.parquet", "--out", "l.safetensors"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: tuple[str, ...]) -> None:
    table("s.csv", shots())
    Path("labels.txt").write_text("red\nblue\n")
    run(*arguments, code=2)


def test_learned_labels_have_their_own_prompts() -> None:
    learned(table("s.csv", shots()))
    assert "--templates" in run("--labels", "l.safetensors", "--templates", "plain", code=2).stderr
    assert "--scale" in run("--labels", "l.safetensors", "--scale", "3", code=2).stderr


def test_the_number_of_images_is_checked_before_their_labels() -> None:
    Path("labels.txt").write_text("rouge\nbleu\n")
    rows = [(f"{number}.png", "vert") for number in range(10_001)]
    done = run("--learn", table("s.csv", rows), "--labels", "labels.txt", "--out",
               "l.safetensors", code=65)  # fmt: skip
    assert "10,001 images; at most 10,000" in done.stderr


def test_the_model_is_loaded_once_for_texts_and_scale(store: Path) -> None:
    loads: list[str] = []

    def load(name: str) -> FakeEncoder:
        loads.append(name)
        return FakeEncoder()

    with Vectorizer(open_snapshot(store), lambda: load("model"), lambda: load("texts")) as one:
        labels = [Label("red", ("red",)), Label("blue", ("blue",))]
        assert zero_shot(one, labels, "plain").scale == FakeEncoder().logit_scale
        assert loads == ["model"]
    loads.clear()
    with Vectorizer(open_snapshot(store), lambda: load("model"), lambda: load("texts")) as one:
        zero_shot(one, labels, "plain", scale=3.0)
        assert loads == ["texts"]


def test_labels_of_another_model_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    learned(table("s.csv", shots()))
    other = FakeEncoder(seed=1)
    paths = sorted(Path("pictures").iterdir())
    image_store(Path("other"), {path.name: path for path in paths}, [(paths[0].name, "x")], other)
    monkeypatch.setenv("MMINDEX_STORE", "other")
    assert "learned with" in run("--labels", "l.safetensors", code=78).stderr


def test_a_folder_that_does_not_exist_is_found_before_learning() -> None:
    run("--learn", table("s.csv", shots()), "--out", "none/l.safetensors", code=73)
