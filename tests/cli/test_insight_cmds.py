"""``match``, ``classify``, ``dedup``, ``explain`` and ``caption`` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest
from PIL import Image
from typer.testing import CliRunner

from mmindex.models.encoder import Encoder
from mmindex.search import vectorize
from mmindex_cli.app import app
from support.images import COLOURS, write_pngs
from support.models import FakeEncoder
from support.stores import image_store

HOSTILE = "blue \x1b[2J \u202e <b>"


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    paths = write_pngs(tmp_path / "pictures", 20)
    return {f"folder/{path.name}": path for path in paths}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, images: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    captions = [
        (name, HOSTILE if n == 2 else f"a {COLOURS[n % 5]} square {n}")
        for n, name in enumerate(images)
    ]
    image_store(tmp_path / "store", images, captions, FakeEncoder())

    def load(*_arguments: object) -> Encoder:
        return FakeEncoder()

    monkeypatch.setattr(vectorize, "_load", load)
    monkeypatch.setenv("MMINDEX_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


@pytest.fixture
def labels(tmp_path: Path) -> str:
    path = tmp_path / "labels.txt"
    path.write_text("red\nblue\n白\twhite\nblack\n")
    return str(path)


def run(*arguments: str) -> click.testing.Result:
    return CliRunner().invoke(app, list(arguments))


def records(done: click.testing.Result) -> list[dict[str, object]]:
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_pair_gets_a_score_and_a_result(images: dict[str, Path]) -> None:
    path = str(images["folder/00003.png"])
    done = run("match", "--image", path, "--text", "a white thing")
    assert done.exit_code == 0
    assert done.stdout.startswith("match: score 0.")
    assert "fitted to 20 matched and" in done.stdout
    [answer] = records(
        run("match", "--image", "folder/00003.png", "--text", "a black thing", "--format", "json")
    )
    assert answer["match"] is False
    assert answer["score"] < answer["threshold"]  # type: ignore[operator]
    [answer] = records(
        run("match", "--image", "folder/00003.png", "--text", "a black thing", "--format", "json",
            "--threshold", "-1")
    )  # fmt: skip
    assert (answer["match"], "fitted" in answer) == (True, False)


def test_a_file_of_pairs_is_evaluated(tmp_path: Path) -> None:
    lines = ["image,text,label"]
    for n in range(20):
        lines.append(f"pictures/{n:05d}.png,a {COLOURS[n % 5]} thing,1")
        lines.append(f"pictures/{n:05d}.png,a {COLOURS[(n + 2) % 5]} thing,0")
    lines.append("pictures/gone.png,anything,1")
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(lines) + "\n")
    [report] = records(run("match", "--pairs", str(path), "--format", "json"))
    assert (report["pairs"], report["matched"]) == (40, 20)
    assert report["f1"] > 0.75  # type: ignore[operator]
    assert len(report["errors"]) == 1  # type: ignore[arg-type]
    table = run("match", "--pairs", str(path)).stdout
    assert "ROC AUC" in table
    assert "unusable   1, for example pictures/gone.png" in table
    tsv = run("match", "--pairs", str(path), "--format", "tsv").stdout.splitlines()
    assert len(tsv) == 42
    assert {line.count("\t") for line in tsv} == {5}


def test_the_corpus_is_labelled_with_a_report(tmp_path: Path, labels: str) -> None:
    truth = tmp_path / "truth.csv"
    names = {0: "red", 2: "blue", 3: "白", 4: "black"}
    rows = [f"folder/{n:05d}.png,{names[n % 5]}" for n in range(20) if n % 5 != 1]
    truth.write_text("image,label\n" + "\n".join(rows) + "\n")
    done = run("classify", "--labels", labels, "--truth", str(truth), "--confusion", "c.png",
               "--templates", "plain", "-k", "2", "--format", "json")  # fmt: skip
    *told, last = records(done)
    assert len(told) == 20
    assert told[3]["truth"] == "白"
    first, second = told[3]["labels"]  # type: ignore[misc]
    assert first["label"] == "白"
    assert first["probability"] > second["probability"]
    report = last["report"]
    assert report["items"] == 16  # type: ignore[index]
    assert report["accuracy"] == 1.0  # type: ignore[index]
    with Image.open("c.png") as image:
        assert image.format == "PNG"
    table = run("classify", "--labels", labels, "--truth", str(truth)).stdout
    assert "macro F1" in table
    assert "白" in table


def test_files_and_folders_are_labelled(labels: str) -> None:
    done = run("classify", "pictures", "folder/00002.png", "--labels", labels,
               "--templates", "plain", "--format", "tsv")  # fmt: skip
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["id", "rank", "label", "probability", "truth", "error"]
    assert len(lines) == 22
    assert lines[-1][:3] == ["folder/00002.png", "1", "blue"]
    chosen = records(
        run("classify", "--labels", labels, "--where", "image_id like '%1.png'", "--format", "json")
    )
    assert [one["id"] for one in chosen] == ["folder/00001.png", "folder/00011.png"]


def test_an_image_that_cannot_be_used_shows_in_the_exit_code(tmp_path: Path, labels: str) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"GIF89a")
    done = run("classify", "bad.jpg", "folder/00000.png", "--labels", labels,
               "--templates", "plain", "--format", "json")  # fmt: skip
    assert done.exit_code == 65
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert "error" in first
    assert second["labels"][0]["label"] == "red"
    assert "1 of the images cannot be used" in done.stderr


def test_duplicates_are_printed_as_table_json_tsv_and_page(tmp_path: Path) -> None:
    done = run("dedup", "--image-threshold", "0.9", "--html", "d.html", "--format", "json")
    groups = records(done)
    assert groups
    assert all(sum(image["keep"] for image in g["images"]) == 1 for g in groups)  # type: ignore[attr-defined]
    page = (tmp_path / "d.html").read_text("utf-8")
    assert "default-src &#39;none&#39;" in page
    table = run("dedup", "--image-threshold", "0.9").stdout
    assert f"{len(groups)} groups of" in table
    tsv = run("dedup", "--image-threshold", "0.9", "--format", "tsv").stdout.splitlines()
    assert {line.count("\t") for line in tsv} == {7}
    assert run("dedup", "--image-threshold", "1").stdout == "no near-duplicates\n"
    assert run("dedup", "--where", "width < 0", "--format", "json").stdout == ""


def test_a_map_is_printed_as_table_json_tsv_and_page(tmp_path: Path, labels: str) -> None:
    [found] = records(run("map", "--html", "m.html", "--format", "json"))
    assert found["images"] == 20
    assert len(found["points"]) == found["distinct"] == 20  # type: ignore[arg-type]
    assert found["method"] == "PCA"
    assert "t-SNE needs 30 different images, and there are" in str(found["reason"])
    assert "script-src" in (tmp_path / "m.html").read_text("utf-8")
    table = run("map").stdout
    assert "20 images, positions by PCA" in table
    assert "note: PCA instead of t-SNE" in table
    assert "\x1b" not in table
    tsv = run("map", "--format", "tsv", "--with-location").stdout.splitlines()
    assert tsv[0].endswith("copies\tlat\tlon")
    assert len(tsv) == 21
    [named] = records(run("map", "--labels", labels, "--format", "json"))
    assert {group["name"] for group in named["groups"]} <= {"red", "blue", "白", "black"}  # type: ignore[attr-defined]
    [none] = records(run("map", "--where", "width < 0", "--html", "m.html", "--format", "json"))
    assert (none["images"], none["points"], none["groups"]) == (0, [], [])
    assert "The condition matches no image." in (tmp_path / "m.html").read_text("utf-8")


def test_an_explanation_is_drawn_and_described(tmp_path: Path) -> None:
    done = run("explain", "--image", "folder/00000.png", "--text", "red", "--out", "e.png")
    assert done.exit_code == 0, done.stderr
    assert "strongest (occlusion) at" in done.stdout
    with Image.open(tmp_path / "e.png") as image:
        width, height = image.size
        assert width > 48  # room for the legend
        assert height > 40
    [answer] = records(
        run("explain", "--image", "folder/00000.png", "--text", "red", "--format", "json")
    )
    assert (tmp_path / "explain.png").is_file()
    assert answer["method"] == "occlusion"
    assert len(answer["map"]) == 8  # type: ignore[arg-type]


def test_an_image_is_described(images: dict[str, Path]) -> None:
    done = run("caption", "--image", str(images["folder/00003.png"]), "-k", "2")
    assert done.exit_code == 0, done.stderr
    assert all(" a white square " in line for line in done.stdout.splitlines())
    assert len(done.stdout.splitlines()) == 2
    hostile = run("caption", "--image", "folder/00002.png", "-k", "20")
    assert "\x1b" not in hostile.stdout
    assert "\u202e" not in hostile.stdout
    [answer] = records(
        run("caption", "--image", "folder/00003.png", "--voters", "4", "--format", "json")
    )
    assert "white" in answer["captions"][0]["caption"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("match",), 2, "--image and --text, or --pairs"),
        (("match", "--image", "x", "--text", "y", "--pairs", "z.csv"), 2, "or --pairs"),
        (("match", "--image", "x"), 2, "--image and --text"),
        (("match", "--image", "nobody.jpg", "--text", "x"), 66, "no such file"),
        (("match", "--pairs", "none.csv"), 66, "none.csv"),
        (("classify", "--labels", "none.txt"), 66, "none.txt"),
        (("dedup", "--image-threshold", "2"), 2, "--image-threshold"),
        (("dedup", "--html", "nowhere/x.html"), 73, "nowhere"),
        (("map", "--html", "nowhere/x.html"), 73, "nowhere"),
        (("map", "--labels", "none.txt"), 66, "none.txt"),
        (("map", "--where", "nothing = 1"), 2, "nothing"),
        (("dedup", "--store", "nowhere"), 66, "no mmindex store"),
        (("explain", "--image", "folder/00000.png", "--text", "x", "--out", "no/e.png"), 73, "no/"),
        (("explain", "--image", "folder/00000.png", "--text", "x", "--method", "gradient"), 2,
         "occlusion"),
        (("caption", "--image", "nobody.jpg"), 66, "no such file"),
    ],
)  # fmt: skip
def test_impossible_requests_have_an_exit_code_and_a_reason(
    arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run(*arguments)
    assert done.exit_code == code, done.stderr
    assert done.stdout == ""
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["match", "classify", "dedup", "map", "explain", "caption"])
def test_help_shows_an_example(name: str) -> None:
    done = run(name, "--help")
    assert done.exit_code == 0
    assert f"Example: mmindex {name}" in done.stdout


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from mmindex_cli import caption, classify, dedup, explain, map, match\n"
        "heavy = ('torch', 'faiss', 'pyarrow', 'PIL', 'duckdb', 'matplotlib', 'numpy')\n"
        "print([m for m in heavy if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
