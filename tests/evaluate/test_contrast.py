"""Two versions of one corpus are compared; for other corpora, the error names the difference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import mmindex
from mmindex.core.errors import NoInputError, UsageError
from mmindex_cli.app import app
from support.fakestore import run_build, write_photos
from support.pages import assert_self_contained
from support.vectors import random_units, write_clip_retrieval, write_npy

ROWS = 40
GOOD = 25  # rows whose text has the same vector as its image


def vectors_store(folder: Path, good: int, rows: int = ROWS) -> Path:
    """Publish a store in which only the captions of the first ``good`` rows find their images."""
    place = write_clip_retrieval(folder / "a", rows=rows)
    images = random_units(rows)
    texts = random_units(rows, seed=1)
    texts[:good] = images[:good]
    write_npy(place / "text_emb" / "text_emb_0.npy", texts.astype(np.float16))
    mmindex.build(folder / "store", [f"embeddings:{place}"])
    return folder / "store"


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vectors_store(tmp_path_factory.mktemp("better"), ROWS)


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vectors_store(tmp_path_factory.mktemp("worse"), GOOD)


def test_a_known_difference_is_found_in_both_directions(better: Path, worse: Path) -> None:
    with mmindex.open(better) as index, mmindex.open(worse) as other:
        found, plain = index.compare(worse), other.evaluate()
    assert (found.version, found.store, found.model) == (1, str(worse), "unknown")
    for direction, block in (
        (found.text_to_image, plain.text_to_image),
        (found.image_to_text, plain.image_to_text),
    ):
        assert direction.queries == ROWS
        first = direction.changes[0]
        assert (first.here, first.there) == (100.0, block.r1)
        assert first.only_there == 0
        assert first.only_here == round((100 - block.r1) * ROWS / 100)
        assert 0 < first.low < first.difference < first.high
        assert not direction.worse
        assert all(moved.here == 1 < moved.there for moved in direction.better)
        ratios = [moved.there / moved.here for moved in direction.better]
        assert ratios == sorted(ratios, reverse=True)


def test_the_other_way_round_has_the_opposite_sign(better: Path, worse: Path) -> None:
    with mmindex.open(better) as one, mmindex.open(worse) as two:
        there, back = one.compare(worse).text_to_image, two.compare(better).text_to_image
    for change, opposite in zip(there.changes, back.changes, strict=True):
        assert change.difference == -opposite.difference
        assert (change.low, change.p) == (pytest.approx(-opposite.high), opposite.p)
    assert [m.id for m in there.better] == [m.id for m in back.worse]


def test_a_version_of_the_same_store_is_named_by_its_number(tmp_path: Path) -> None:
    store = vectors_store(tmp_path, GOOD)
    vectors_store(tmp_path, ROWS)
    with mmindex.open(store) as index:
        change = index.compare(1).text_to_image.changes[0]
        assert index.version == 2
        assert change.here == 100.0 > change.there
        assert not index.compare(1).same_ranks
        same = index.compare(2)
        assert same.same_ranks
        assert same.text_to_image.changes[0].difference == 0.0
        for missing in (3, 0, "9" * 20, "9" * 5_000):
            with pytest.raises(NoInputError):
                index.compare(missing)


def test_equal_ranks_are_said(tmp_path: Path, better: Path) -> None:
    page = tmp_path / "page.html"
    asked = ["evaluate", "--store", str(better), "--compare", "1", "--html", str(page)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "every query has the same rank in both versions" in done.stdout
    text = page.read_text(encoding="utf-8")
    assert "Every query has the same rank in both versions." in text
    assert "better here" not in text


def photo_store(folder: Path, pictures: dict[str, int], captions: dict[str, list[str]]) -> Path:
    run_build(folder / "store", write_photos(folder / "photos", pictures, captions))
    return folder / "store"


PICTURES = {"a.jpg": 1, "b.jpg": 2, "c.jpg": 3}
CAPTIONS = {"a.jpg": ["one"], "b.jpg": ["two"], "c.jpg": ["three"]}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_store(tmp_path_factory.mktemp("photos"), PICTURES, CAPTIONS)


@pytest.mark.parametrize(
    ("pictures", "captions", "says"),
    [
        ({**PICTURES, "d.jpg": 4}, CAPTIONS, r"1 image is only in the other .*d\.jpg"),
        ({"a.jpg": 1, "b.jpg": 2}, CAPTIONS, r"1 image is only in this version .*c\.jpg"),
        ({**PICTURES, "b.jpg": 9}, CAPTIONS, r"1 image is different .*b\.jpg"),
        (PICTURES, {**CAPTIONS, "a.jpg": ["one", "uno"]}, r"1 caption is only in the other .*#1"),
        (
            PICTURES,
            {**CAPTIONS, "a.jpg": ["another"]},
            r"1 caption is different .*a\.jpg#0",
        ),
    ],
)
def test_another_corpus_is_refused_and_the_difference_is_named(
    tmp_path: Path,
    photos: Path,
    pictures: dict[str, int],
    captions: dict[str, list[str]],
    says: str,
) -> None:
    other = photo_store(tmp_path, pictures, captions)
    with mmindex.open(photos) as index, pytest.raises(UsageError, match=says) as caught:
        index.compare(other)
    assert caught.value.exit_code == 2


def test_without_captions_there_is_nothing_to_compare(tmp_path: Path) -> None:
    store = photo_store(tmp_path, PICTURES, {})
    with mmindex.open(store) as index, pytest.raises(NoInputError, match="no captions"):
        index.compare(1)


def test_the_command_prints_a_table_json_and_a_page(
    tmp_path: Path, better: Path, worse: Path
) -> None:
    page = tmp_path / "page.html"
    asked = ["evaluate", "--store", str(better), "--compare", str(worse)]
    done = CliRunner().invoke(app, [*asked, "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert f"compared with version 1 of {worse} (unknown)" in done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith("text to image, R@1 ")]
    assert line.split()[4] == "100.0"
    text = page.read_text(encoding="utf-8")
    assert_self_contained(text)
    assert "Comparison with another version" in text
    assert not [place for place in (tmp_path, better, worse) if str(place) in text]

    done = CliRunner().invoke(app, [*asked, "--format", "json"])
    compared = json.loads(done.stdout)["compared"]
    assert compared.keys() == {"store", "version", "model", "text_to_image", "image_to_text"}
    direction = compared["text_to_image"]
    assert direction.keys() == {"queries", "r@1", "r@5", "r@10", "better", "worse"}
    assert direction["r@1"].keys() == {
        "here",
        "there",
        "difference",
        "low",
        "high",
        "only_here",
        "only_there",
        "p",
    }
    assert direction["better"][0].keys() == {"id", "rank_here", "rank_there"}


def test_the_command_refuses_another_corpus(tmp_path: Path, better: Path) -> None:
    other = vectors_store(tmp_path / "other", 3, rows=4)
    done = CliRunner().invoke(app, ["evaluate", "--store", str(better), "--compare", str(other)])
    assert done.exit_code == 2
    assert "36 images are only in this version" in done.stderr
