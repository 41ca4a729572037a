"""Crossmodal-3600: captions in many languages, and recall for each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mmindex
from mmindex.core.errors import DataError, NoInputError
from mmindex_cli.app import app
from support.corpora import items, jpeg, noted, rejections, source_events, write_files

KEYS = ("0002a3", "0009c1", "00aaff")


def row(key: str, **languages: Any) -> str:
    said = {name: {"caption": texts, "caption/tokenized": []} for name, texts in languages.items()}
    return json.dumps({"image/key": key, "image/locale": "de", **said}) + "\n"


CAPTIONS = (
    row(KEYS[0], de=["ein Haus", "ein rotes Haus"], zh=["一座房子"])
    + row(KEYS[1], de=["ein Hund"], zh=["一只狗", "狗"])
    + row(KEYS[2], de=["ein Boot"], zh=[])
)


def corpus(path: Path, captions: str = CAPTIONS, keys: tuple[str, ...] = KEYS) -> Path:
    images = {f"images/{key}.jpg": jpeg(n) for n, key in enumerate(keys)}
    return write_files(path, {"captions.jsonl": captions, **images})


def events(path: Path, language: str = "") -> list[Any]:
    return source_events(f"xm3600:{path}" + (f"#{language}" if language else ""))


def test_captions_of_all_languages_are_read_in_order(tmp_path: Path) -> None:
    found = items(events(corpus(tmp_path)))
    assert list(found) == [f"xm3600/{key}" for key in KEYS]
    first = found[f"xm3600/{KEYS[0]}"]
    assert list(first.captions) == ["ein Haus", "ein rotes Haus", "一座房子"]
    assert first.metadata == {"languages": ["de", "de", "zh"], "locale": "de"}
    assert first.read() == jpeg(0)


def test_one_language_can_be_read(tmp_path: Path) -> None:
    found = events(corpus(tmp_path), "zh")
    assert [list(item.captions) for item in items(found).values()] == [
        ["一座房子"],
        ["一只狗", "狗"],
        [],
    ]
    assert noted(found) == {"images_without_captions": 1}
    with pytest.raises(NoInputError, match="no split 'fr'") as error:
        events(corpus(tmp_path), "fr")
    assert "de, zh" in error.value.message


def test_missing_images_and_paths_outside_the_folder_are_rejected(tmp_path: Path) -> None:
    path = corpus(tmp_path / "c", CAPTIONS + row("../../secret", de=["x"]), KEYS[:2])
    write_files(tmp_path, {"secret.jpg": jpeg(9)})
    found = events(path)
    assert len(items(found)) == 2
    assert list(rejections(found).values()) == ["missing", "unsafe_path"]


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        (CAPTIONS[:-20], "captions.jsonl:3: truncated"),
        ("[1]\n", "captions.jsonl:1"),
        (row("", de=["x"]), "no `image/key`"),
        (row("a", de="x"), "no list of texts"),
        (row("a", de=[1]), "no list of texts"),
        ("\ufeff" + "{\n", "captions.jsonl:1"),
    ],
)
def test_a_damaged_list_names_the_line(tmp_path: Path, captions: str, said: str) -> None:
    with pytest.raises(DataError, match="captions") as error:
        events(corpus(tmp_path, captions))
    assert said in error.value.message


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"captions.jsonl not found"):
        events(write_files(tmp_path, {"images/a.jpg": jpeg(0)}))
    with pytest.raises(NoInputError, match="images"):
        events(write_files(tmp_path / "b", {"captions.jsonl": CAPTIONS}))


@pytest.mark.slow
def test_recall_is_shown_for_each_language(tmp_path: Path) -> None:
    mmindex.build(tmp_path / "s", [f"xm3600:{corpus(tmp_path / 'c')}"], model="embedded")
    with mmindex.open(tmp_path / "s") as index:
        languages = index.evaluate().languages
        assert languages is not None
        assert [(one.language, one.captions) for one in languages] == [("de", 4), ("zh", 3)]
        for one in languages:  # three images, so everything is among the first five
            assert one.text_to_image["r@5"] == one.image_to_text["r@5"] == 100
    page = tmp_path / "report.html"
    done = CliRunner().invoke(
        app, ["evaluate", "--store", str(tmp_path / "s"), "--html", str(page)]
    )
    assert done.exit_code == 0, done.stderr
    assert "<tr><td><bdi>zh</bdi></td><td>3</td>" in page.read_text("utf-8")
    [line] = [line for line in done.stdout.splitlines() if line.startswith("zh ")]
    assert line.endswith(" 3")
