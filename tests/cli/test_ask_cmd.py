"""``ask``, ``annotate`` and ``caption --generate`` with the embedded model and its decoder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import click.testing
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mmindex.decoder import table, writer
from mmindex.decoder.generate import Search
from mmindex.decoder.measure import questions_about
from mmindex.decoder.model import DECODER_FILE
from mmindex.decoder.tasks import Task
from mmindex.decoder.writer import Writer, Written
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
    assert json.loads(done.stdout) == {"file": str(out), "images": 12, "failed": 2, "resumed": 0}
    rows = pq.read_table(out).to_pylist()
    assert [bool(row["answer"]) for row in rows] == [n not in (2, 4) for n in range(COUNT)]
    assert "2.jpg" in rows[2]["error"]


def test_a_killed_job_goes_on(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of the first run are not asked about again."""
    monkeypatch.setattr(table, "_ROWS", 4)
    monkeypatch.setattr(writer, "_BATCH", 2)
    out, asked = tmp_path / "places.parquet", []
    each = Writer.each

    def killed(self: Writer, tasks: Iterable[Task], search: Search) -> Iterator[Written]:
        for number, one in enumerate(each(self, tasks, search)):
            asked.append(one.id)
            if number == limit:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(Writer, "each", killed)
    limit = 6
    run(store, "ask", "where is this?", "--corpus", "--out", out, code=130)
    assert not out.exists()
    asked.clear()
    limit = COUNT
    done = run(store, "ask", "where is this?", "--corpus", "--out", out)
    assert "4 of them are from an interrupted run" in done.stdout
    assert asked == [f"scenes/{number}" for number in range(4, COUNT)]
    rows = pq.read_table(out).to_pylist()
    assert [row["image_id"] for row in rows] == [f"scenes/{number}" for number in range(COUNT)]
    assert [row["answer"] for row in rows] == [
        make_scene(77, number).background for number in range(COUNT)
    ]


def vqa_files(folder: Path) -> tuple[Path, Path]:
    """Write questions about the scenes, and their answers, in the format of VQA v2."""
    questions: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number in range(COUNT):
        for asked in questions_about(make_scene(77, number)):
            if asked.type in ("place", "time"):
                name = len(questions)
                questions.append(
                    {"question_id": name, "image_id": number, "question": f"{asked.prompt}?"}
                )
                annotations.append({
                    "question_id": name, "image_id": number, "question_type": asked.type,
                    "answer_type": "other", "answers": [{"answer": asked.answer}] * 10,
                })  # fmt: skip
    questions += [
        {"question_id": "elsewhere", "image_id": 999, "question": "where is this?"},
        {"question_id": "empty", "image_id": "scenes/0", "question": "?"},
    ]
    (folder / "q.json").write_text(json.dumps({"questions": questions}))
    (folder / "a.json").write_text(json.dumps({"annotations": annotations}))
    return folder / "q.json", folder / "a.json"


def test_a_file_of_questions_is_answered_and_measured(store: Path, tmp_path: Path) -> None:
    questions, annotations = vqa_files(tmp_path)
    out = tmp_path / "answers.parquet"
    done = run(store, "ask", "--corpus", "--questions", questions, "--annotations", annotations,
               "--out", out, "--format", "json")  # fmt: skip
    record = json.loads(done.stdout)
    rows = pq.read_table(out).to_pylist()
    assert record["questions"] == len(rows)
    assert record["failed"] == 1
    assert "words" in next(row["error"] for row in rows if row["question_id"] == "empty")
    assert "elsewhere" not in {row["question_id"] for row in rows}
    figures = record["accuracy"]["all"]
    assert figures["asked"] == len(rows) - 1
    assert figures["decoder"] > 0.9
    assert figures["decoder"] > max(figures["majority"], figures["blind"])
    assert set(record["accuracy"]["by_question_type"]) == {"place", "time"}
    assert record["accuracy"]["left_out"] == 2
    assert record["model"] == "embedded"
    assert b"mmindex.questions" in pq.read_schema(out).metadata


def test_the_accuracy_is_shown_by_answer_type(store: Path, tmp_path: Path) -> None:
    questions, annotations = vqa_files(tmp_path)
    done = run(store, "ask", "--corpus", "--questions", questions, "--annotations", annotations,
               "--out", tmp_path / "o.parquet")  # fmt: skip
    assert "all questions" in done.stdout
    assert "left out: 2 questions" in done.stdout


def test_questions_about_other_images_are_refused(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text('{"questions": [{"question_id": 1, "image_id": 999, "question": "where?"}]}')
    done = run(store, "ask", "--corpus", "--questions", path, "--out", tmp_path / "o.parquet",
               code=65)  # fmt: skip
    assert "none of the questions is about an indexed image" in done.stderr


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
        ("ask",),
        ("ask", "--image", "scenes/0"),
        ("ask", "--corpus", "--out", "x.parquet"),
        ("ask", "--corpus", "--out", "x.parquet", "--annotations", "a.json"),
        ("ask", "--image", "scenes/0", "--questions", "q.json"),
        ("ask", "how many?", "--corpus", "--out", "x.parquet", "--questions", "q.json"),
        ("ask", "--corpus", "--out", "x", "--where", "width > 1", "--questions", "q.json"),
        ("annotate", "--image", "scenes/0"),
        ("annotate", "--image", "scenes/0", "--prompt", ""),
        ("annotate", "--image", "scenes/0", "--prompt", "?!"),
        ("annotate", "--corpus", "--out", "x.parquet", "--prompt", " "),
        ("ask", " ", "--corpus", "--out", "x.parquet"),
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
