"""Folders: what is read, ignored and refused, and where captions come from."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.records import Ignored, SourceItem
from mmindex.media.uris import read_uri
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
    write_zip,
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
    assert names(found) == ["folder/f/a.jpg", "folder/f/sub/b.jpg"]
    assert rejections(found) == {
        "folder/f/gone.jpg": "missing",
        "folder/f/leak.jpg": "unsafe_path",
        "folder/f/outside": "unsafe_path",
        "folder/f/self.jpg": "unreadable",
    }
    assert ignored(found) == 3  # same.jpg, inside, circle


def test_names_that_are_not_utf8_have_ids_and_uris_that_are(tmp_path: Path) -> None:
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
    for _ in range(depth):  # step by step, because the whole path is too long
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


def test_captions_are_next_to_the_image_one_per_line(tmp_path: Path) -> None:
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


def test_a_caption_list_can_have_the_form_of_flickr8k_cn(tmp_path: Path) -> None:
    files = {
        "a.jpg": jpeg(1),
        "captions.txt": "a.jpg#zhm#0\t一个穿着泳装的女人\na.jpg#zhm#1\t在水里的女人\n",
    }
    found = events(write_files(tmp_path / "f", files))
    assert items(found)["folder/f/a.jpg"].captions == ("一个穿着泳装的女人", "在水里的女人")
    assert not noted(found)


def test_json_lines_have_columns_and_splits(tmp_path: Path) -> None:
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


def test_captions_of_a_link_belong_to_its_target(tmp_path: Path) -> None:
    files = {"pool/1.jpg": jpeg(1), "captions.txt": "best/x.jpg\tof the link\n1.jpg\tits own\n"}
    folder = write_files(tmp_path / "f", files)
    (folder / "best").mkdir()
    (folder / "best" / "x.jpg").symlink_to("../pool/1.jpg")
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, f"folder:{folder}")
    images, captions = rows_of(objects, report)
    assert [row["image_id"] for row in images] == ["folder/f/pool/1.jpg"]
    assert {row["text"] for row in captions} == {"of the link", "its own"}


def test_a_link_to_an_image_outside_the_corpus_is_an_image(tmp_path: Path) -> None:
    """The way in which git-annex and DVC store files."""
    folder = write_files(tmp_path / "f", {".store/aa/1": jpeg(1)})
    (folder / "1.jpg").symlink_to(".store/aa/1")
    assert names(events(folder)) == ["folder/f/1.jpg"]


def test_a_link_into_another_folder_of_the_corpus_is_not_a_new_image(tmp_path: Path) -> None:
    write_files(tmp_path, {"all/1.jpg": jpeg(1), "best/2.jpg": jpeg(2), "out/3.jpg": jpeg(3)})
    (tmp_path / "best" / "1.jpg").symlink_to(tmp_path / "all" / "1.jpg")
    (tmp_path / "best" / "3.jpg").symlink_to(tmp_path / "out" / "3.jpg")
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, f"folder:{tmp_path}/all", f"folder:{tmp_path}/best")
    assert report.images.rows == 2
    assert [(entry.id, entry.reason) for entry in report.quarantined] == [
        ("folder/best/3.jpg", "unsafe_path")
    ]
    assert report.sources[1].notes == {"ignored: another name of a picture in the corpus": 1}


def test_caches_and_hidden_files_are_skipped(tmp_path: Path) -> None:
    files = {
        "2019/1.jpg": jpeg(1),
        "2019/@eaDir/1.jpg/SYNOFILE_THUMB_XL.jpg": jpeg(2),
        "2019/._1.jpg": b"\0\5\x16\7",
        ".thumbnails/1.jpg": jpeg(3),
        "Thumbs.db": b"",
    }
    found = events(write_files(tmp_path / "f", files))
    assert names(found) == ["folder/f/2019/1.jpg"]
    assert ignored(found) == 4


def test_globs_select_what_is_read(tmp_path: Path) -> None:
    files = {name: jpeg(1) for name in ("a.jpg", "a.png", "Exports/b.jpg", "2019/c.jpg")}
    folder = write_files(tmp_path / "f", files)
    assert names(events(folder, exclude=("*.png", "exports"))) == [
        "folder/f/2019/c.jpg",
        "folder/f/a.jpg",
    ]
    assert names(events(folder, include=("2019",))) == ["folder/f/2019/c.jpg"]


def test_unread_files_are_counted_by_extension(tmp_path: Path) -> None:
    files = {f"{n}{kind}": b"x" for n in range(2) for kind in (".PSD", ".doc", "")}
    folder = write_files(tmp_path / "f", {**files, "9.psd": b"x", "a.jpg": jpeg(1)})
    report = crawl_specs(new_store(tmp_path / "store"), f"folder:{folder}")
    assert report.not_read == {".psd": 3, ".doc": 2, "no extension": 2}


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
@pytest.mark.parametrize("below", ["", "train/"])
def test_hugging_face_image_folders(tmp_path: Path, name: str, below: str) -> None:
    text = {
        "metadata.jsonl": '{"file_name": "a/1.jpg", "text": "one", "artist": "Ada"}\n',
        "metadata.csv": "file_name,text,artist\na/1.jpg,one,Ada\n",
    }[name]
    files = {f"{below}{name}": text, f"{below}a/1.jpg": jpeg(1), "2.jpg": jpeg(2)}
    found = events(write_files(tmp_path / "f", files))
    first = items(found)[f"folder/f/{below}a/1.jpg"]
    assert (first.captions, first.metadata) == (("one",), {"artist": "Ada"})
    assert items(found)["folder/f/2.jpg"].captions == ()
    assert not ignored(found)
    assert not noted(found)


def test_every_split_of_an_image_folder_has_its_own_list(tmp_path: Path) -> None:
    files = {f"{split}/1.jpg": jpeg(n) for n, split in enumerate(("test", "train"))}
    lists = {f"{split}/metadata.csv": f"file_name,text\n1.jpg,{split}\n2.jpg,gone\n"
             for split in ("test", "train")}  # fmt: skip
    found = events(write_files(tmp_path / "f", files | lists))
    assert [item.captions for item in items(found).values()] == [("test",), ("train",)]
    assert noted(found) == {"captions_of_unknown_images": 2}


def test_kaggle_s_flickr8k_has_its_captions_next_to_the_image_folder(tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,dog {n} {k}\n" for n in range(3) for k in range(5))
    files = {f"Images/{n}.jpg": jpeg(n) for n in range(3)}
    found = events(write_files(tmp_path / "f", {**files, "captions.txt": "image,caption\n" + rows}))
    assert [len(item.captions) for item in items(found).values()] == [5, 5, 5]
    assert not noted(found)


@pytest.mark.parametrize("top", ["", "album/"])
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_an_archive_of_images_is_read_in_place(tmp_path: Path, form: str, top: str) -> None:
    files = {
        f"{top}captions.txt": b"1.jpg\tone\n",
        f"{top}1.jpg": jpeg(1),
        f"{top}sub/2.JPG": jpeg(2),
        f"{top}sub/._2.JPG": b"\0\5\x16\7",
        f"__MACOSX/{top}1.jpg": b"\0\5\x16\7",
        f"{top}film.mp4": b"x",
    }
    path = tmp_path / f"trip.{form}"
    if form == "zip":
        write_zip(path, files)
    else:
        with tarfile.open(path, "w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    found = events(path)
    assert names(found) == [f"folder/trip/{top}1.jpg", f"folder/trip/{top}sub/2.JPG"]
    first, second = items(found).values()
    assert (first.captions, second.captions) == (("one",), ())
    assert [item.read() for item in (first, second)] == [jpeg(1), jpeg(2)]
    assert [read_uri(item.uri) for item in (first, second)] == [jpeg(1), jpeg(2)]
    assert ignored(found) == 3


def test_hostile_members_of_an_archive_are_rejected(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"../../x.jpg": jpeg(1), "ok.jpg": jpeg(2)})
    found = events(tmp_path / "a.zip")
    assert list(rejections(found).values()) == ["unsafe_path"]
    assert names(found) == ["folder/a/ok.jpg"]


def test_a_file_that_is_not_an_archive_is_not_read_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    with pytest.raises(NoInputError, match=r"not a folder, \.zip or \.tar"):
        events(tmp_path / "a.jpg")


def test_an_archive_of_an_image_folder_has_a_list_for_each_split(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for n, split in enumerate(("test", "train")):
        files[f"d/{split}/metadata.csv"] = f"file_name,text\n1.jpg,{split}\n".encode()
        files[f"d/{split}/1.jpg"] = jpeg(n)
    write_zip(tmp_path / "d.zip", files)
    found = events(tmp_path / "d.zip")
    assert [item.captions for item in items(found).values()] == [("test",), ("train",)]
    assert not noted(found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "Title;Date\nRome;2019\n"),
        ("metadata.csv", "album,place,year\nRome,Italy,2019\n"),
        ("metadata.jsonl", '{"album": "Rome"}\n'),
        ("metadata.jsonl", "[]\n"),
        ("metadata.csv", ""),
    ],
)
def test_metadata_of_another_program_is_not_a_list(tmp_path: Path, name: str, text: str) -> None:
    found = events(write_files(tmp_path / "f", {name: text, "1.jpg": jpeg(1)}))
    assert names(found) == ["folder/f/1.jpg"]
    assert ignored(found) == 1
