"""Flickr30k in all common forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmindex.core.errors import DataError, NoInputError
from support.corpora import items, jpeg, noted, rejections, source_events, write_files, write_zip

NAMES = ("1000092795", "10002456", "1007320043")
TEXTS = {name: [f"{name} is one .", f'{name} is "two" , or more'] for name in NAMES}

TOKEN = "".join(
    f"{name}.jpg#{n}\t{text}\n" for name, texts in TEXTS.items() for n, text in enumerate(texts)
)
PIPES = "image_name| comment_number| comment\n" + "".join(
    f"{name}.jpg| {n}| {text}\n" for name, texts in TEXTS.items() for n, text in enumerate(texts)
)
KAGGLE = "image,caption\n" + "".join(
    f'{name}.jpg,"{text.replace(chr(34), chr(34) * 2)}"\n'
    for name, texts in TEXTS.items()
    for text in texts
)
QUOTE = '"'
NLPHUJI = "raw,sentids,split,filename,img_id\n" + "".join(
    f'"{json.dumps(texts).replace(QUOTE, QUOTE * 2)}","[0, 1]",{split},{name}.jpg,0\n'
    for (name, texts), split in zip(TEXTS.items(), ("train", "val", "test"), strict=True)
)


def karpathy(count: int = 3) -> str:
    rows = zip(TEXTS.items(), ("train", "val", "test"), strict=True)
    images = [
        {"filename": f"{name}.jpg", "split": split, "sentences": [{"raw": t} for t in texts]}
        for (name, texts), split in rows
    ]
    return json.dumps({"images": images[:count], "dataset": "flickr30k"})


def images(folder: str = "flickr30k-images") -> dict[str, bytes]:
    return {f"{folder}/{name}.jpg": jpeg(n) for n, name in enumerate(NAMES)}


def events(path: Path, split: str | None = None) -> list[Any]:
    return source_events(f"flickr30k:{path}" + (f"#{split}" if split else ""))


@pytest.mark.parametrize(
    ("name", "content", "splits"),
    [
        ("results_20130124.token", TOKEN, ["all"] * 3),
        ("results.csv", PIPES, ["all"] * 3),
        ("captions.txt", KAGGLE, ["all"] * 3),
        ("flickr_annotations_30k.csv", NLPHUJI, ["train", "val", "test"]),
        ("dataset_flickr30k.json", karpathy(), ["train", "val", "test"]),
    ],
)
@pytest.mark.parametrize("folder", ["", "deeper/"])
def test_every_form_has_the_same_images_and_captions(
    tmp_path: Path, name: str, content: str, splits: list[str], folder: str
) -> None:
    found = items(events(write_files(tmp_path, {f"{folder}{name}": content, **images()})))
    assert list(found) == [f"flickr30k/{stem}" for stem in NAMES]
    assert [list(item.captions) for item in found.values()] == list(TEXTS.values())
    assert [item.split for item in found.values()] == splits
    assert [item.read() for item in found.values()] == [jpeg(n) for n in range(3)]


@pytest.mark.parametrize(
    "folder",
    ["flickr30k_images", "images", "Images", "flickr30k_images/flickr30k_images"],
)
def test_every_usual_image_folder_is_found(tmp_path: Path, folder: str) -> None:
    write_files(tmp_path, {"results_20130124.token": TOKEN, **images(folder)})
    assert len(items(events(tmp_path))) == 3


def test_images_can_stay_in_the_archive(tmp_path: Path) -> None:
    """The hub's flickr30k-images.zip, with the files that macOS adds for each file."""
    write_files(tmp_path, {"dataset_flickr30k.json": karpathy()})
    leftovers = {f"__MACOSX/flickr30k-images/._{name}.jpg": b"junk" for name in NAMES}
    write_zip(tmp_path / "flickr30k-images.zip", {**images(), **leftovers})
    found = items(events(tmp_path, "test"))
    assert [item.read() for item in found.values()] == [jpeg(2)]


def test_the_split_file_has_priority_and_the_other_list_adds_the_rest(tmp_path: Path) -> None:
    """Karpathy's file lists 31,014 of the 31,783 images; no image is lost."""
    files = {"dataset_flickr30k.json": karpathy(2), "results_20130124.token": TOKEN}
    write_files(tmp_path, {**files, **images()})
    assert [item.split for item in items(events(tmp_path)).values()] == ["train", "val", "all"]
    assert list(items(events(tmp_path, "val"))) == [f"flickr30k/{NAMES[1]}"]


def test_an_image_that_occurs_twice_in_the_split_file_is_counted(tmp_path: Path) -> None:
    content = json.loads(karpathy())
    content["images"].append({"filename": f"{NAMES[0]}.jpg", "split": "test", "sentences": []})
    write_files(tmp_path, {"dataset_flickr30k.json": json.dumps(content), **images()})
    found = events(tmp_path)
    assert items(found)[f"flickr30k/{NAMES[0]}"].split == "train"
    assert noted(found) == {"duplicate_images": 1}


def test_missing_and_hostile_names_are_rejected(tmp_path: Path) -> None:
    token = TOKEN + "gone.jpg#0\tx\n../../secret.jpg#0\ty\n"
    write_files(tmp_path / "f", {"results_20130124.token": token, **images()})
    found = events(write_files(tmp_path, {"secret.jpg": b""}) / "f")
    assert rejections(found) == {
        "flickr30k/gone": "missing",
        "flickr30k/../../secret": "unsafe_path",
    }
    assert noted(found) == {"captions_of_rejected_images": 2}


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no captions found"):
        events(tmp_path)
    write_files(tmp_path, {"results_20130124.token": TOKEN})
    with pytest.raises(NoInputError, match="no images there"):
        events(tmp_path)
    with pytest.raises(NoInputError, match=r"no split 'test' \(found: none"):
        events(tmp_path, "test")


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, {"results_20130124.token": TOKEN + "no tab here\n", **images()})
    with pytest.raises(DataError, match=r"results_20130124\.token:7: "):
        events(tmp_path)
