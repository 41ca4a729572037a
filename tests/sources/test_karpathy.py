"""Karpathy's splits of COCO: the split file has priority, and restval counts as train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmindex.core.errors import DataError, NoInputError
from support.corpora import (
    ignored,
    items,
    jpeg,
    noted,
    rejections,
    source_events,
    write_files,
    write_zip,
)


def image(number: int, split: str, folder: str = "val2014") -> dict[str, Any]:
    return {
        "filepath": folder,
        "filename": f"COCO_{folder}_{number:012d}.jpg",
        "split": split,
        "cocoid": number,
        "sentids": [number],
        "sentences": [{"tokens": ["a", "b"], "raw": f"A b {number}.", "sentid": number}],
    }


IMAGES = [
    image(1, "test"),
    image(2, "restval"),
    image(3, "val"),
    image(4, "train", "train2014"),
    image(5, "test"),
]
IMAGE_FILES = {f"val2014/COCO_val2014_{n:012d}.jpg": jpeg(n) for n in (1, 2, 3, 5)}


def write(folder: Path, images: list[dict[str, Any]], **more: bytes) -> Path:
    content = json.dumps({"images": images, "dataset": "coco"})
    return write_files(folder, {"dataset_coco.json": content, **IMAGE_FILES, **more})


def events(path: Path, split: str | None = None) -> list[Any]:
    return source_events(f"coco-karpathy:{path}" + (f"#{split}" if split else ""))


def test_the_test_split_is_read_from_val2014_alone(tmp_path: Path) -> None:
    found = items(events(write(tmp_path, IMAGES), "test"))
    assert list(found) == [f"coco-karpathy/COCO_val2014_{n:012d}" for n in (1, 5)]
    first = next(iter(found.values()))
    assert (first.split, first.captions) == ("test", ("A b 1.",))
    assert first.metadata == {"coco_id": 1, "coco_part": "val2014"}
    assert first.read() == jpeg(1)


def test_without_a_split_images_of_missing_folders_are_counted(
    tmp_path: Path,
) -> None:
    found = events(write(tmp_path, IMAGES))
    assert [item.split for item in items(found).values()] == ["test", "train", "val", "test"]
    assert ignored(found) == 1


def test_a_split_with_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(NoInputError) as caught:
        events(write(tmp_path, IMAGES), "train")
    assert "train2014/" in caught.value.hint
    with pytest.raises(NoInputError, match=r"found: test, train, val"):
        events(tmp_path, "restval")


def test_everything_can_stay_in_the_archive(tmp_path: Path) -> None:
    write_zip(tmp_path / "val2014.zip", IMAGE_FILES)
    content = json.dumps({"images": IMAGES}).encode()
    write_zip(tmp_path / "caption_datasets.zip", {"dataset_coco.json": content})
    found = items(events(tmp_path, "test"))
    assert [item.read() for item in found.values()] == [jpeg(1), jpeg(5)]


def test_hostile_names_and_missing_files_are_rejected(tmp_path: Path) -> None:
    write_files(tmp_path, {"secret/COCO_x.jpg": jpeg(7)})
    hostile = [
        {**image(6, "test"), "filepath": "../secret", "filename": "COCO_x.jpg"},
        {**image(7, "test"), "filename": "../../secret/COCO_x.jpg"},
        {**image(8, "test"), "filepath": "/etc", "filename": "passwd"},
        image(9, "test"),
    ]
    found = events(write(tmp_path / "coco", IMAGES + hostile), "test")
    assert len(items(found)) == 2
    assert sorted(rejections(found).values()) == ["missing", *["unsafe_path"] * 3]


def test_lone_surrogates_are_replaced_and_counted(tmp_path: Path) -> None:
    odd = image(1, "test")
    odd["sentences"] = [{"raw": "half \ud800"}]
    found = events(write(tmp_path, [odd]))
    assert next(iter(items(found).values())).captions == ("half \ufffd",)
    assert noted(found) == {"lone_surrogates_replaced": 1}


def test_damage_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, {"dataset_coco.json": '{"images": [{"filename": "a"}]}', **IMAGE_FILES})
    with pytest.raises(DataError, match=r"dataset_coco\.json: .*\$\.images\[0\]"):
        events(tmp_path)
    with pytest.raises(NoInputError, match=r"dataset_coco\.json not found"):
        events(tmp_path / "val2014")
