"""The ``query`` command for people and scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmindex.models.devices import place
from mmindex.models.openclip import load_encoder
from mmindex.models.resolve import resolve_model
from mmindex.search import vectorize as library
from support.asking import CAPTIONS, run
from support.models import FakeEncoder, save_tiny_model
from support.stores import image_store


@pytest.mark.usefixtures("store")
def test_several_words_are_one_text(images: dict[str, Path]) -> None:
    done = run("a", "blue", "thing", "-k", "1", "--format", "json")
    assert done.exit_code == 0
    [hit] = json.loads(done.stdout)["hits"]
    assert json.loads(done.stdout)["query"] == "a blue thing"
    assert (hit["id"], hit["uri"]) == ("folder/00002.png", str(images["folder/00002.png"]))


@pytest.mark.usefixtures("store")
def test_a_table_is_the_default() -> None:
    done = run("red", "-k", "2")
    lines = done.stdout.splitlines()
    assert lines[0] == "images for red"
    assert lines[1].split() == ["rank", "score", "id", "path"]
    assert lines[2].split()[:1] == ["1"]
    assert len(lines) == 4


@pytest.mark.usefixtures("store")
def test_a_photo_finds_itself_first(images: dict[str, Path]) -> None:
    """An image finds itself by file and by id, with a score above 0.999."""
    for name in (str(images["folder/00003.png"]), "folder/00003.png"):
        done = run("--image", name, "--to", "image", "--format", "json")
        first = json.loads(done.stdout)["hits"][0]
        assert first["id"] == "folder/00003.png"
        assert first["score"] > 0.999


@pytest.mark.usefixtures("store")
def test_hostile_captions_are_inert_in_every_format() -> None:
    table = run("thing", "--to", "text", "--format", "table").stdout
    tsv = run("thing", "--to", "text", "--format", "tsv").stdout
    lines = run("thing", "--to", "text", "--format", "json").stdout
    for text in (table, tsv, lines):
        assert "\x1b" not in text
        assert "白い" in text
    assert "a red\\tsquare" in table
    assert "\t'=1+1\t" in tsv
    assert "\ta red\\tsquare\t" in tsv
    captions = {hit["caption"] for hit in json.loads(lines)["hits"]}
    assert captions == set(CAPTIONS)


@pytest.mark.usefixtures("store")
def test_a_page_is_written_in_addition_to_the_printed_hits(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run("red", "-k", "3", "--html", str(page), "--format", "json")
    assert len(json.loads(done.stdout)["hits"]) == 3
    assert page.read_text("utf-8").count("data:image/jpeg") == 3


@pytest.mark.usefixtures("store")
def test_images_texts_and_conditions_can_be_combined(
    tmp_path: Path, images: dict[str, Path]
) -> None:
    """A text, a file, an id from a list, an unwanted part, weights and a condition."""
    listed = tmp_path / "ids.txt"
    listed.write_text("folder/00001.png\n\n")
    done = run(
        *("red", "--image", str(images["folder/00000.png"]), "--like", str(listed)),
        *("--plus", "blue", "--minus", "folder/00003.png", "--weights", "1,1,1,1,0.5", "--others"),
        *("--where", "image_id <> 'folder/00004.png'", "--format", "json"),
    )
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [hit["id"] for hit in answer["hits"]] == ["folder/00002.png", "folder/00003.png"]
    assert answer["query"].startswith("red + ")
    assert answer["query"].endswith(" + 1 more - folder/00003.png")


@pytest.mark.usefixtures("store")
def test_a_condition_that_matches_nothing_is_an_empty_answer() -> None:
    done = run("red", "--where", "width < 0", "--format", "json")
    assert (done.exit_code, json.loads(done.stdout)["hits"]) == (0, [])
    assert "no hits" in run("red", "--where", "width < 0").stdout


@pytest.mark.usefixtures("store")
def test_hits_below_the_wanted_score_are_left_out() -> None:
    [best, *_] = json.loads(run("red", "--format", "json").stdout)["hits"]
    least = str(best["score"] - 0.001)
    done = run("red", "--min-score", least, "--format", "json")
    assert json.loads(done.stdout)["hits"] == [best]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "nothing to search for"),
        (("--minus", "red"), 2, "nothing to search for"),
        (("red", "--queries", "-"), 2, "--queries cannot be combined with a text"),
        (("--queries", "-", "--others"), 2, "cannot be combined with --queries"),
        (
            ("red", "--weights", "1,2"),
            2,
            "--weights has 2 numbers, but the query has 1 wanted parts",
        ),
        (("red", "--plus", "blue", "--weights", "a,b"), 2, "not numbers"),
        (("red", "--minus", "red", "--weights", "1,1"), 2, "cancel"),
        (("red", "--where", "widht > 1"), 2, "did you mean width"),
        (("red", "--where", "1=1; drop table images"), 2, "--where"),
        (("red", "--like", "nothing.txt"), 66, "nothing.txt"),
        (("--queries", "-", "--html", "page.html"), 2, "--html cannot be combined with --queries"),
        (("red", "-k", "0"), 2, "-k"),
        (("red", "--to", "sound"), 2, "sound"),
        ((" ",), 2, "the query is empty"),
        (("--image", "nobody.jpg"), 66, "no such file"),
        (("--queries", "nothing.txt"), 66, "nothing.txt"),
        (("red", "--html", "nowhere/page.html"), 73, "nowhere/page.html"),
        (("red", "--store", "nowhere"), 66, "no mmindex store"),
    ],
)
@pytest.mark.usefixtures("store")
def test_impossible_requests_have_an_exit_code_and_a_reason(
    arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run(*arguments)
    assert done.exit_code == code
    assert done.stdout == ""
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_index_of_another_model_is_refused_with_78(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_load", lambda *_: FakeEncoder(seed=1))
    done = run("red", "--store", str(store))
    assert done.exit_code == 78
    assert FakeEncoder().info.fingerprint[:12] in done.stderr
    assert FakeEncoder(seed=1).info.fingerprint[:12] in done.stderr


def test_a_real_model_is_found_again_from_the_manifest(
    tmp_path: Path, images: dict[str, Path]
) -> None:
    """The model is loaded from the place used by the build; changed weights are refused (78)."""
    mine = save_tiny_model(tmp_path / "model")
    encoder = load_encoder(resolve_model(mine.name, None), place("cpu"))
    captions = [(image_id, f"a dog {n}") for n, image_id in enumerate(images)]
    image_store(tmp_path / "store", images, captions, encoder)
    shared = ("--store", str(tmp_path / "store"), "--device", "cpu", "--format", "json", "-k", "1")
    done = run("a dog 3", "--to", "text", *shared)
    [hit] = json.loads(done.stdout)["hits"]
    assert hit["caption"] == "a dog 3"
    assert hit["score"] > 0.999
    other = save_tiny_model(tmp_path / "other", seed=1)
    (mine.folder / "open_clip_model.safetensors").write_bytes(other.weights.read_bytes())
    assert run("a dog", *shared).exit_code == 78


def test_help_imports_neither_torch_nor_faiss_nor_arrow() -> None:
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from mmindex_cli.app import app\n"
        "for name in ('query', 'evaluate'):\n"
        "    assert CliRunner().invoke(app, [name, '--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'faiss', 'pyarrow', 'PIL') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.usefixtures("store")
def test_a_mistake_in_a_condition_is_reported_before_the_model_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: object) -> FakeEncoder:
        raise AssertionError("loaded")

    monkeypatch.setattr(library, "_load", load)
    assert "did you mean width" in run("red", "--where", "widht > 1").stderr
    assert "--where" in run("red", "--where", "width > 'many'").stderr


@pytest.mark.usefixtures("store")
def test_columns_are_shown_and_sorted_by() -> None:
    shown = ("red", "--columns", "width,format", "-k", "3")
    hits = json.loads(run(*shown, "--format", "json").stdout)["hits"]
    judged = ["probability", "weak"]
    assert list(hits[0]) == ["rank", "score", "id", "uri", "caption", *judged, "columns"]
    assert all(list(hit["columns"]) == ["width", "format"] for hit in hits)
    width, form = hits[0]["columns"].values()
    header, first, *_ = run(*shown, "--format", "tsv").stdout.splitlines()
    assert header.split("\t")[-5:] == ["error", *judged, "width", "format"]
    assert first.split("\t")[-4:] == ["", "", str(width), form]
    _, header, first, *_ = run(*shown).stdout.splitlines()
    assert header.split()[:4] == ["rank", "score", "width", "format"]
    assert first.split()[2:4] == [str(width), form]
    for order in ("image_id", "image_id:desc"):
        done = run("red", "-k", "3", "--sort", order, "--format", "json")
        ids = [hit["id"] for hit in json.loads(done.stdout)["hits"]]
        assert ids == sorted(ids, reverse=order.endswith(":desc"))
        assert sorted(hit["rank"] for hit in json.loads(done.stdout)["hits"]) == [1, 2, 3]


@pytest.mark.usefixtures("store")
def test_paths_are_printed_for_other_programs(images: dict[str, Path]) -> None:
    done = run("red", "-k", "2", "--format", "paths")
    paths = done.stdout.splitlines()
    assert set(paths) <= set(map(str, images.values()))
    assert run("red", "-k", "2", "-0").stdout == "".join(f"{path}\0" for path in paths)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--columns", "widht"), "no column 'widht'; did you mean 'width'?"),
        (("--sort", "nothing"), "no column 'nothing'"),
        (("-0", "--format", "json"), "-0 cannot be combined with --format json"),
        (("--preview",), "--preview needs a terminal"),
    ],
)
@pytest.mark.usefixtures("store")
def test_an_impossible_output_format_is_a_usage_error(
    arguments: tuple[str, ...], message: str
) -> None:
    done = run("red", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
