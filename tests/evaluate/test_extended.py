"""Lists of right answers for COCO's test split, from the package eccv-caption."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import mmindex
from mmindex.core.errors import DataError, MissingPackageError, NoInputError, UsageError
from mmindex.evaluate import extended
from mmindex_cli.app import app
from support.models import FakeEncoder
from support.stores import Side, captions_table, images_table, key_of, make_store
from support.vectors import random_units

DATA = extended._data_folder()
SIDES: tuple[Literal["image"], Literal["text"]] = ("image", "text")


def numbers() -> list[tuple[int, list[int]]]:
    """The number of each image of the test split, with the numbers of its five captions."""
    own = json.loads((DATA / "original_caption_to_image.json").read_text())
    captions = np.load(DATA / "coco_test_ids.npy").reshape(-1, 5).tolist()
    return [(own[str(five[0])][0], five) for five in captions]


def made(
    root: Path, images: list[tuple[int, list[int]]], *, known: bool = True, noise: float = 0.0
) -> Path:
    """A store with these images; each caption has the vector of its image, plus noise."""
    ids = [f"coco-karpathy/COCO_val2014_{number:012d}" for number, _ in images]
    said = [(name, f"{c}") for name, (_, five) in zip(ids, images, strict=True) for c in five]
    vectors = random_units(len(ids))
    texts = np.repeat(vectors, 5, axis=0) + noise * random_units(len(said), seed=1)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    sides = {
        "image": Side([key_of(name) for name in ids], vectors),
        "text": Side([key_of(text) for _, text in said], texts),
    }
    table = images_table([(name, key_of(name), f"/{name}.jpg") for name in ids])
    if known:
        table = table.append_column("coco_id", pa.array([number for number, _ in images]))
    encoder = FakeEncoder(dim=vectors.shape[1]).info
    make_store(root, table, captions_table(said), sides, encoder)
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("test-split") / "s", numbers())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "queries", "answers"),
    [
        ("eccv-caption", (1_332, 1_261), (11_279, 22_548)),
        ("cxc", (24_972, 5_000), (35_585, 35_585)),
    ],
)
def test_a_list_is_joined_with_the_test_split(
    store: Path, name: str, queries: tuple[int, int], answers: tuple[int, int]
) -> None:
    """As each caption has the vector of its image, all own answers come first."""
    with mmindex.open(store) as index:
        judged = index.judge(name)
    assert judged.unknown == 0
    assert judged.text_to_image is not None
    assert judged.image_to_text is not None
    blocks = (judged.text_to_image, judged.image_to_text)
    if not any(block.sampled for block in blocks):
        assert tuple(block.queries for block in blocks) == queries
        assert tuple(block.right_answers for block in blocks) == answers
    for block in blocks:
        assert block.figures["own_r@1"].value == 100
        assert block.figures["r@1"].value > 99  # one caption of CxC is not right for its own image
        assert block.figures["map@r"].value < 100


@pytest.mark.slow
def test_figures_equal_those_of_the_package(tmp_path: Path) -> None:
    images = numbers()
    store = made(tmp_path / "s", images, noise=1.5)
    with mmindex.open(store) as index:
        judged = index.judge("eccv-caption")
        found = [vectors.astype(np.float64) for _, vectors in map(index.vectors, SIDES)]
    with warnings.catch_warnings():  # it recommends another package
        warnings.simplefilter("ignore")
        from eccv_caption import Metrics

    metrics = Metrics()
    captions = metrics.coco_ids.tolist()
    # Two of its answers are not in the test split, so no ranking can contain them.
    inside = {*captions}
    metrics.eccv_gts["i2t"] = {
        image: [one for one in said if one in inside]
        for image, said in metrics.eccv_gts["i2t"].items()
    }
    ids = [[number for number, _ in images], captions]
    ranked = {
        name: ranking(metrics.eccv_gts[name], (ids[asked], found[asked]), (ids[to], found[to]))
        for name, asked, to in (("i2t", 0, 1), ("t2i", 1, 0))
    }
    theirs = metrics.eccv_metrics(ranked, "all")
    for name, block in (("i2t", judged.image_to_text), ("t2i", judged.text_to_image)):
        assert block is not None
        assert block.queries == len(metrics.eccv_gts[name])
        assert 1 < block.figures["map@r"].value < 50
        for ours, key in (("map@r", "map_at_r"), ("r_precision", "rprecision"), ("r@1", "r1")):
            value = 100 * theirs[f"eccv_{key}"][name]
            assert block.figures[ours].value == pytest.approx(value, abs=1e-9)


def ranking(
    right: dict[int, list[int]],
    asked: tuple[list[int], NDArray[np.float64]],
    to: tuple[list[int], NDArray[np.float64]],
) -> dict[int, list[int]]:
    """The first answers of each query that has a right one, as many as it has right answers."""
    place = {number: row for row, number in enumerate(asked[0])}
    order = np.argsort(
        -(asked[1][[place[number] for number in right]] @ to[1].T), axis=1, kind="stable"
    )
    most = max(map(len, right.values()))
    names = np.array(to[0])[order[:, :most]].tolist()
    return dict(zip(right, names, strict=True))


@pytest.mark.slow
def test_the_command_shows_both_recalls_and_the_flaw(store: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--store", str(store), "--qrels", "eccv-caption"])
    assert done.exit_code == 0, done.stderr
    for part in (" r@1 ", " own_r@1 ", " map@r ", "false negatives are the known flaw of recall"):
        assert part in done.stdout


def test_a_part_of_the_test_split_and_other_corpora_are_refused(tmp_path: Path) -> None:
    part = made(tmp_path / "part", numbers()[:30])
    with mmindex.open(part) as index, pytest.raises(DataError, match="do not join") as error:
        index.judge("cxc")
    assert "cxc" in error.value.message
    other = made(tmp_path / "other", numbers()[:3], known=False)
    with mmindex.open(other) as index:
        with pytest.raises(UsageError, match="no numbers of COCO"):
            index.judge("eccv-caption")
        with pytest.raises(NoInputError):
            index.judge("./cxc")
        with pytest.raises(NoInputError):
            index.judge(Path("cxc"))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extended, "_PACKAGE", "no-such-package")
    store = made(tmp_path / "s", numbers()[:3])
    with mmindex.open(store) as index, pytest.raises(MissingPackageError) as error:
        index.judge("cxc")
    assert error.value.hint == "pip install 'mmindex[eccv]'"
