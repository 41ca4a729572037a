"""Any folder: what is taken, what is ignored, what is refused, and where captions come from."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mmindex.core.errors import DataError
from mmindex.core.records import Ignored, SourceItem
from support.corpora import (
    crawl_specs,
    ignored,
    items,
    jpeg,
    new_store,
    noted,
    rejections,
    rows_of,
    source_events,
    write_files,
)


def events(path: Path, split: str | None = None, **options: Any) -> list[Any]:
    return source_events(f"folder:{path}" + (f"#{split}" if split else ""), **options)


def names(found: list[Any]) -> list[str]:
    return [event.image_id for event in found if isinstance(event, SourceItem)]


def test_images_are_found_at_any_depth_in_the_order_of_names(tmp_path: Path) -> None:
    listed = ["b.jpg", "a/z.PNG", "a/b/c.webp", "Z.jpeg", "狗.avif", "a.jpg"]
    files = {name: jpeg(1) for name in listed} | {"notes.doc": b"", "a/.DS_Store": b""}
    found = events(write_files(tmp_path / "photos", files))
    order = ["Z.jpeg", "a/b/c.webp", "a/z.PNG", "a.jpg", "b.jpg", "狗.avif"]
    assert names(found) == [f"folder/photos/{name}" for name in order]
    assert ignored(found) == 2
    assert items(found)["folder/photos/b.jpg"].uri == str(tmp_path / "photos" / "b.jpg")


def test_all_files_are_tried_on_request(tmp_path: Path) -> None:
    files = {"a.jpg": jpeg(1), "b": jpeg(2), "c.doc": b"", "lone.txt": b"text", "b.txt": "of b"}
    found = events(write_files(tmp_path / "f", files), all_files=True)
    assert names(found) == [f"folder/f/{name}" for name in ("a.jpg", "b", "c.doc", "lone.txt")]
    assert items(found)["folder/f/b"].captions == ("of b",)
    assert not ignored(found)


def test_links_are_followed_inside_only_and_never_in_circles(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "f", {"a.jpg": jpeg(1), "sub/b.jpg": jpeg(2)})
    write_files(tmp_path, {"out.jpg": jpeg(3), "elsewhere/c.jpg": jpeg(4)})
    for name, target in {
        "same.jpg": "a.jpg",
        "leak.jpg": "../out.jpg",
        "gone.jpg": "nowhere.jpg",
        "self.jpg": "self.jpg",
        "inside": "sub",
        "circle": ".",
        "outside": "../elsewhere",
    }.items():
        (folder / name).symlink_to(target)
    found = events(folder)
    assert names(found) == ["folder/f/a.jpg", "folder/f/same.jpg", "folder/f/sub/b.jpg"]
    assert rejections(found) == {
        "folder/f/gone.jpg": "missing",
        "folder/f/leak.jpg": "unsafe_path",
        "folder/f/outside": "unsafe_path",
        "folder/f/self.jpg": "unreadable",
    }
    assert ignored(found) == 2  # inside, circle


def test_names_that_are_no_utf8_have_ids_and_uris_that_are(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (tmp_path / "picture").write_bytes(jpeg(5))
    os.link(tmp_path / "picture", os.fsencode(folder) + b"/caf\xe9 \xff.jpg")
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, f"folder:{folder}")
    row = rows_of(objects, report)[0][0]
    assert row["image_id"] == "folder/f/caf%E9 %FF.jpg"
    assert row["uri"].startswith("file:///")


def test_folders_nested_deeper_than_python_calls_are_walked(tmp_path: Path) -> None:
    depth = 1_200
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):  # by steps: the whole path is too long to be named at once
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    (tmp_path / "e.jpg").write_bytes(jpeg(1))
    try:
        assert len(names(events(tmp_path))) == 1
    finally:  # shutil.rmtree, which pytest uses, is recursive
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


def test_a_folder_that_cannot_be_listed_is_one_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_files(tmp_path / "f", {"a.jpg": jpeg(1), "locked/b.jpg": jpeg(2)})
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = events(folder)
    assert names(found) == ["folder/f/a.jpg"]
    assert rejections(found) == {"folder/f/locked": "unreadable"}


def test_captions_stand_beside_the_image_one_a_line(tmp_path: Path) -> None:
    files = {
        "a.jpg": jpeg(1),
        "a.txt": "\ufeffone\r\n\r\ntwo, with a comma\n",
        "b.jpg": jpeg(2),
        "sub/c.jpg": jpeg(3),
        "sub/c.txt": "three",
        "bad.jpg": jpeg(4),
        "bad.txt": b"\xff\xfe",
        "lone.txt": "of nothing",
    }
    found = events(write_files(tmp_path / "f", files))
    captions = {name.rpartition("/")[2]: item.captions for name, item in items(found).items()}
    assert captions == {
        "a.jpg": ("one", "two, with a comma"),
        "b.jpg": (),
        "bad.jpg": (),
        "c.jpg": ("three",),
    }
    assert noted(found) == {"unreadable_caption_files": 1}
    assert ignored(found) == 1  # lone.txt


def test_a_captions_list_names_images_by_their_relative_path(tmp_path: Path) -> None:
    files = {
        "captions.txt": "sub/a.jpg\tone\nsub/a.jpg\ttwo\na.jpg\tthree\ngone.jpg\tx\n",
        "a.jpg": jpeg(1),
        "a.txt": "not used: the list is there",
        "sub/a.jpg": jpeg(2),
        "sub/b.jpg": jpeg(3),
    }
    found = events(write_files(tmp_path / "f", files))
    captions = {name: item.captions for name, item in items(found).items()}
    assert captions == {
        "folder/f/a.jpg": ("three",),
        "folder/f/sub/a.jpg": ("one", "two"),
        "folder/f/sub/b.jpg": (),
    }
    assert noted(found) == {"captions_of_unknown_images": 1}


def test_a_captions_list_may_be_laid_out_as_flickr8k_cn_is(tmp_path: Path) -> None:
    files = {
        "a.jpg": jpeg(1),
        "captions.txt": "a.jpg#zhm#0\t一个穿着泳装的女人\na.jpg#zhm#1\t在水里的女人\n",
    }
    found = events(write_files(tmp_path / "f", files))
    assert items(found)["folder/f/a.jpg"].captions == ("一个穿着泳装的女人", "在水里的女人")
    assert not noted(found)


def test_json_lines_bring_columns_and_splits(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a.jpg", "caption": "one", "split": "test", "title": "T"},
        {"file_name": "b.jpg", "text": "two", "split": "train"},
    ]
    files = {"captions.jsonl": "\n".join(map(json.dumps, rows))}
    folder = write_files(tmp_path / "f", files | {f"{n}.jpg": jpeg(1) for n in "abc"})
    found = items(events(folder))
    assert [item.split for item in found.values()] == ["test", "train", "all"]
    assert found["folder/f/a.jpg"].metadata == {"title": "T"}
    only = events(folder, "test")
    assert names(only) == ["folder/f/a.jpg"]
    assert sum(isinstance(event, Ignored) for event in only) == 2


def test_a_damaged_captions_list_ends_the_run(tmp_path: Path) -> None:
    write_files(tmp_path, {"captions.txt": "a.jpg\tx\nbroken\n", "a.jpg": jpeg(1)})
    with pytest.raises(DataError, match=r"captions\.txt:2: "):
        events(tmp_path)
