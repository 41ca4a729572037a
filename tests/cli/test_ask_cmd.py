"""``ask``, ``annotate`` and ``caption --generate`` with the embedded model and its decoder."""

from __future__ import annotations

import json
from pathlib import Path

import click.testing
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mmindex.decoder.model import DECODER_FILE
from mmindex.models.devices import place
from mmindex.models.encoder import Encoder
from mmindex.models.openclip import load_encoder
from mmindex.models.resolve import ModelRequest, resolve_model
from mmindex.scenes import captions, draw, encode, make_scene
from mmindex_cli.app import app
from support.models import TinyModel
from support.stores import image_store

COUNT = 12
HOSTILE = "boat \x1b[2J \u202e <b>"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    request = resolve_model("embedded", None)
    if request.folder is None or not (request.folder / DECODER_FILE).is_file():
        pytest.skip("the embedded model's decoder is not in this checkout")
    return load_encoder(request, place("cpu"))


def scenes_store(folder: Path, encoder: Encoder) -> Path:
    images, said = {}, []
    for number in range(COUNT):
        scene = make_scene(77, number)
        path = folder / f"{number}.jpg"
        path.write_bytes(encode(draw(scene)))
        images[f"scenes/{number}"] = path
        said += [(f"scenes/{number}", caption.text) for caption in captions(scene)]
    image_store(folder / "store", images, said, encoder)
    return folder / "store"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Path:
    """Twelve unseen scenes with their captions; do not change it."""
    return scenes_store(tmp_path_factory.mktemp("asked"), encoder)


def run(store: Path, *arguments: object, code: int = 0) -> click.testing.Result:
    words = [*map(str, arguments), "--store", str(store)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code, result.output
    return result


def test_a_question_about_an_image_is_answered(store: Path) -> None:
    [line] = run(
        store, "ask", "--image", "scenes/0", "is it day, sunset or night?"
    ).stdout.splitlines()
    assert line == make_scene(77, 0).time
    path = store.parent / "3.jpg"
    done = run(store, "ask", "--image", path, "where is this?", "--format", "json")
    record = json.loads(done.stdout)
    assert record["answer"] == make_scene(77, 3).background
    assert record["model"] == "embedded"
    assert len(record["fingerprint"]) == 64
    assert record["score"] <= 0


def test_given_answers_are_ranked(store: Path, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text(f"sea\n{make_scene(77, 3).background}\n\n{HOSTILE}\n")
    done = run(store, "ask", "--image", "scenes/3", "where is this?", "--answers",
               tmp_path / "answers")  # fmt: skip
    assert done.stdout.splitlines()[0].endswith(make_scene(77, 3).background)
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout


def test_instructions_are_followed(store: Path) -> None:
    done = run(store, "annotate", "--image", "scenes/3", "--prompt", "list the things")
    assert any(thing.kind in done.stdout for thing in make_scene(77, 3).things)


@pytest.mark.parametrize("beams", [1, 4])
def test_an_image_is_described(store: Path, beams: int) -> None:
    done = run(store, "caption", "--generate", "--image", "scenes/0", "--beams", beams,
               "--format", "json")  # fmt: skip
    record = json.loads(done.stdout)
    assert record["image"] == "scenes/0"
    assert len(record["caption"].split()) > 3
    assert "question" not in record


def test_all_images_are_described_and_compared(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "captions.parquet"
    done = run(store, "caption", "--generate", "--corpus", "--out", out, "--references")
    assert "12 images" in done.stdout
    assert "cider_d" in done.stdout
    table = pq.read_table(out)
    assert table.column_names == ["image_id", "uri", "caption", "score", "error"]
    assert table["image_id"].to_pylist() == [f"scenes/{n}" for n in range(COUNT)]
    assert all(table["caption"].to_pylist())
    assert table.schema.metadata[b"mmindex.prompt"] == b"describe the picture"
    error = run(store, "caption", "--generate", "--corpus", "--out", out, code=2).stderr
    assert "already exists" in error


def test_an_image_that_is_gone_has_an_error(encoder: Encoder, tmp_path: Path) -> None:
    lost = scenes_store(tmp_path, encoder)
    (tmp_path / "2.jpg").unlink()
    (tmp_path / "4.jpg").write_bytes(b"no image")
    out = tmp_path / "answers.parquet"
    done = run(lost, "ask", "how many boats?", "--corpus", "--out", out, "--format", "json")
    assert json.loads(done.stdout) == {"file": str(out), "images": 12, "failed": 2}
    rows = pq.read_table(out).to_pylist()
    assert [bool(row["answer"]) for row in rows] == [n not in (2, 4) for n in range(COUNT)]
    assert "2.jpg" in rows[2]["error"]


def test_a_condition_selects_images(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "some.parquet"
    run(store, "ask", "where is this", "--corpus", "--out", out, "--where", "image_id = 'scenes/3'")
    assert pq.read_table(out)["answer"].to_pylist() == [make_scene(77, 3).background]


@pytest.mark.parametrize("question", ["", "  ", "?!", "many " * 33])
def test_a_question_without_words_or_with_too_many_is_refused(store: Path, question: str) -> None:
    error = run(store, "ask", "--image", "scenes/0", question, code=2).stderr
    assert "words" in error


def test_an_unknown_question_gets_some_answer(store: Path) -> None:
    done = run(store, "ask", "--image", "scenes/0", f"{HOSTILE} 你好 xyzzy?")
    assert "\x1b" not in done.stdout
    assert len(done.stdout.split()) <= 33


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "how many boats?"),
        ("ask", "how many boats?", "--corpus"),
        ("ask", "how many boats?", "--image", "scenes/0", "--corpus"),
        ("ask", "how many boats?", "--image", "scenes/0", "--out", "x.parquet"),
        ("ask", "how many boats?", "--image", "scenes/0", "--where", "width > 1"),
        ("annotate", "--image", "scenes/0"),
        ("caption",),
        ("caption", "--image", "scenes/0", "--references"),
        ("caption", "--image", "scenes/0", "--generate", "--references"),
        ("caption", "--image", "scenes/0", "--generate", "-k", "2"),
        ("caption", "--corpus", "--out", "x.parquet"),
    ],
)
def test_options_that_do_not_fit_are_refused(store: Path, arguments: tuple[str, ...]) -> None:
    run(store, *arguments, code=2)


def test_an_unknown_image_is_reported(store: Path) -> None:
    run(store, "ask", "--image", "scenes/99", "how many boats?", code=66)


def test_a_model_without_a_decoder_is_refused(tiny_model: TinyModel, tmp_path: Path) -> None:
    """Exit code 78, before an image is read."""
    bare = scenes_store(tmp_path, load_encoder(ModelRequest(tiny_model.name, ""), place("cpu")))
    error = run(bare, "ask", "--image", "scenes/0", "how many boats?", code=78).stderr
    assert "has no decoder" in error
    assert "mmindex train --decoder" in error
