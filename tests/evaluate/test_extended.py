"""Lists of right answers for COCO's test split, from the package eccv-caption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import mmindex
from mmindex.core.errors import DataError, MissingPackageError, NoInputError, UsageError
from mmindex.evaluate import extended
from mmindex_cli.app import app
from support.models import FakeEncoder
from support.stores import Side, captions_table, images_table, key_of, make_store
from support.vectors import random_units

DATA = extended._data_folder()


def numbers() -> list[tuple[int, list[int]]]:
    """The number of each image of the test split, with the numbers of its five captions."""
    own = json.loads((DATA / "original_caption_to_image.json").read_text())
    captions = np.load(DATA / "coco_test_ids.npy").reshape(-1, 5).tolist()
    return [(own[str(five[0])][0], five) for five in captions]


def made(root: Path, images: list[tuple[int, list[int]]], *, known: bool = True) -> Path:
    """A store with these images; each caption has the vector of its image."""
    ids = [f"coco-karpathy/COCO_val2014_{number:012d}" for number, _ in images]
    said = [(name, f"{c}") for name, (_, five) in zip(ids, images, strict=True) for c in five]
    vectors = random_units(len(ids))
    sides = {
        "image": Side([key_of(name) for name in ids], vectors),
        "text": Side([key_of(text) for _, text in said], np.repeat(vectors, 5, axis=0)),
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
