"""Searches by words, and by words and vectors, through the API and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import mmindex
from mmindex.api import Index
from mmindex.core.errors import DataError, UsageError
from mmindex_cli.app import app

pytestmark = pytest.mark.slow

NAMES = [
    "IMG_0042.png",
    "IMG_0043.png",
    "invoice 2023.png",
    "Crème brûlée.png",
    "東京タワー.png",
    "(OR) AND NOT.png",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    photos = folder / "photos"
    photos.mkdir()
    for number, name in enumerate(NAMES):
        Image.new("RGB", (64, 48), (40 * number, 90, 160)).save(photos / name)
    store = folder / "store"
    mmindex.build(store, sources=["scenes:60", f"folder:{photos}"], model="embedded", workers=0)
    return store


@pytest.fixture(scope="module")
def index(root: Path) -> Iterator[Index]:
    with mmindex.open(root) as opened:
        yield opened


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("img 0042", "IMG_0042.png"),
        ("INVOICE", "invoice 2023.png"),
        ("creme brulee", None),  # a word with accents is another word
        ("Cre\u0300me bru\u0302le\u0301e", "Crème brûlée.png"),
        ("東京", "東京タワー.png"),
        ("タワー", "東京タワー.png"),
        ('") OR (NOT "*', "(OR) AND NOT.png"),
        ("or\0and\0not", "(OR) AND NOT.png"),
    ],
)
def test_files_are_found_by_their_names(index: Index, words: str, name: str | None) -> None:
    found = [Path(hit.uri).name for hit in index.search(keywords=words)]
    assert (found[0] if found else None) == name


def test_a_very_long_query_is_answered(index: Index) -> None:
    found = index.search(keywords="x " * 500_000 + "invoice")
    assert Path(found[0].uri).name == "invoice 2023.png"
    many = " ".join(f"w{number}" for number in range(150_000))
    [found] = index.search_many([f"invoice {many[:60_000]}"], keywords=True)
    assert Path(found[0].uri).name == "invoice 2023.png"
    assert Path(index.search(keywords=f"invoice {many}")[0].uri).name == "invoice 2023.png"
    assert Path(index.search(keywords="東" * 300_000 + "京")[0].uri).name == "東京タワー.png"


@pytest.mark.parametrize("words", ["", "  ", "🚤", "!?"])
def test_keywords_without_words_are_refused(index: Index, words: str) -> None:
    with pytest.raises(UsageError, match="no words"):
        index.search(keywords=words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keywords": "boat", "text": "boat"}, "cannot be combined"),
        ({"keywords": "boat", "image": "scenes/0/000000000001"}, "cannot be combined"),
        ({"keywords": "boat", "hybrid": True}, "cannot be combined"),
        ({"keywords": "boat", "to": "text"}, "searches captions"),
        ({"keywords": "boat", "min_score": 0.1}, "`min_score`"),
        ({"keywords": "boat", "good": True}, "`good`"),
        ({"text": "boat", "hybrid": True, "good": True}, "`good`"),
        ({"text": "boat", "hybrid": True, "to": "text"}, "searches captions"),
        ({"image": "scenes/0/000000000001", "hybrid": True}, "needs a text"),
    ],
)
def test_what_words_cannot_be_combined_with(index: Index, arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        index.search(**arguments)


def test_a_hybrid_search_ranks_by_both(index: Index) -> None:
    name = "IMG_0043.png"
    assert Path(index.search("IMG_0043", k=1, hybrid=True)[0].uri).name == name
    caption = next(hit.caption for hit in index.search("a boat", to="text"))
    assert caption is not None
    plain = {hit.id: hit.score for hit in index.search(caption, k=66)}
    both = index.search(caption, k=10, hybrid=True)
    assert all(hit.score == pytest.approx(plain[hit.id], abs=1e-6) for hit in both)
    assert all(hit.probability is None for hit in both)


def test_many_hybrid_searches_equal_single_ones(index: Index) -> None:
    texts = ["a boat", "IMG_0042", "🚤", "a red house in the snow"]
    many = [[(hit.id, hit.rank) for hit in hits] for hits in index.search_many(texts, hybrid=True)]
    assert many == [[(hit.id, hit.rank) for hit in index.search(t, hybrid=True)] for t in texts]


def test_without_words_a_hybrid_search_is_a_search_by_meaning(index: Index) -> None:
    [both] = index.search_many(["🚤"], hybrid=True)
    [plain] = index.search_many(["🚤"])
    assert list(both) == list(plain)
    assert list(index.search("🚤", hybrid=True)) == list(index.search("🚤"))


def test_many_searches_by_words_equal_single_ones(index: Index) -> None:
    texts = ["boat png", "IMG_0042", "nothing_has_this"]
    many = [
        [(hit.id, hit.score) for hit in hits] for hits in index.search_many(texts, keywords=True)
    ]
    assert many == [[(hit.id, hit.score) for hit in index.search(keywords=t)] for t in texts]
    [hits] = index.search_many(["🚤"], keywords=True, errors="keep")
    assert (len(hits), hits.error) == (0, "no words to search for")
    with pytest.raises(DataError, match="no words"):
        list(index.search_many(["🚤"], keywords=True))
    with pytest.raises(UsageError, match="cannot be combined"):
        index.search_many(["boat"], keywords=True, hybrid=True)
    with pytest.raises(UsageError, match="`min_score`"):
        list(index.search_many(["boat"], keywords=True, min_score=0.1))


def test_conditions_and_limits_apply_to_words(index: Index) -> None:
    only = "starts_with(image_id, 'scenes')"
    assert all(
        hit.id.startswith("scenes") for hit in index.search(keywords="img boat", where=only, k=100)
    )
    assert all(
        hit.id.startswith("scenes") for hit in index.search("IMG_0042", hybrid=True, where=only)
    )
    scores = [hit.score for hit in index.search("IMG_0042", hybrid=True, min_score=0.3, k=66)]
    assert all(score >= 0.3 for score in scores)
    distinct = index.search(keywords="png", distinct=True, k=100)
    assert len({hit.id for hit in distinct}) == len(distinct)


def run(root: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["query", "--store", str(root), *arguments])
    assert result.exit_code == code, result.output
    return result.output if code else result.stdout  # warnings are on stderr


def test_the_command_line_searches_by_words(root: Path, tmp_path: Path) -> None:
    found = json.loads(run(root, "--keywords", "invoice", "--format", "json"))
    assert [Path(hit["uri"]).name for hit in found["hits"]] == ["invoice 2023.png"]
    found = json.loads(run(root, "--hybrid", "IMG_0042", "-k", "1", "--format", "json"))
    assert Path(found["hits"][0]["uri"]).name == "IMG_0042.png"
    lines = tmp_path / "lines.txt"
    lines.write_text("IMG_0042\nIMG_0043\n")
    output = run(root, "--hybrid", "--queries", str(lines), "-k", "1", "--format", "json")
    answers = [json.loads(line) for line in output.splitlines()]
    names = [Path(one["hits"][0]["uri"]).name for one in answers]
    assert names == ["IMG_0042.png", "IMG_0043.png"]
    output = run(root, "--keyword-queries", str(lines), "-k", "1", "--format", "json")
    assert [json.loads(line)["hits"][0]["id"] for line in output.splitlines()] == [
        one["hits"][0]["id"] for one in answers
    ]
    for wrong in (["--hybrid"], ["boat"], ["--queries", str(lines)], ["--html", "x.html"]):
        run(root, "--keyword-queries", str(lines), *wrong, code=2)
    lines.write_text("IMG_0042\n?!\n")
    assert "no words to search for" in run(root, "--keyword-queries", str(lines), code=65)
    assert "--keywords" in run(root, "--keywords", "a", "a boat", code=2)
    assert "--hybrid" in run(root, "--hybrid", "--image", "scenes/0/000000000001", code=2)
