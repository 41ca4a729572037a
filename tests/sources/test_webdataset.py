"""WebDataset shards as written by img2dataset and open_clip, and invalid ones."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.core.records import (
    Ignored,
    ItemError,
    Note,
    NoteKind,
    Reason,
    Rejected,
    Skip,
    SourceItem,
)
from mmindex.media.tars import read_tar_member, walk_tar
from support.corpora import source_events
from support.images import png

MAX = 1 << 24


def add(archive: tarfile.TarFile, name: str, data: bytes, **fields) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data))


def make_tar(path: Path, *files: tuple[str, bytes], **options) -> Path:
    with tarfile.open(path, "w", **options) as archive:
        for name, data in files:
            add(archive, name, data)
    return path


def events(path: Path, split: str | None = None) -> list[Any]:
    return source_events(f"webdataset:{path}" + (f"#{split}" if split else ""))


def test_the_usual_layout_of_img2dataset(tmp_path):
    row = {"caption": "ignored beside the text file", "url": "http://x/1", "width": 64, "exif": {}}
    make_tar(
        tmp_path / "00000.tar",
        ("000000000.jpg", png(1)),
        ("000000000.json", json.dumps(row).encode()),
        ("000000000.txt", b"a red square\n"),
        ("000000001.json", json.dumps({"status": "failed_to_download"}).encode()),
        ("000000002.webp", png(2)),
        ("000000002.json", json.dumps({"text": "a blue one"}).encode()),
    )
    first, skipped, second = events(tmp_path / "00000.tar", "train")
    assert (first.image_id, first.split) == (f"webdataset/{tmp_path.name}/00000/000000000", "train")
    assert first.uri == f"{tmp_path}/00000.tar!000000000.jpg"
    assert first.captions == ("a red square",)
    assert first.metadata == {"url": "http://x/1", "width": 64, "exif": "{}"}
    assert first.read() == png(1)
    assert skipped == Ignored(Skip.NO_IMAGE)
    assert (second.captions, second.read()) == (("a blue one",), png(2))


def test_shards_are_named_by_globs_ranges_and_folders(tmp_path):
    for n in range(3):
        make_tar(tmp_path / f"{n:05d}.tar", (f"{n}.png", png(n)))
    names = [f"webdataset/{tmp_path.name}/{n:05d}/{n}" for n in range(3)]
    for pattern in ("*.tar", "{00000..00002}.tar", "0000[0-2].tar", ""):
        assert [item.image_id for item in events(f"{tmp_path}/{pattern}")] == names
    with pytest.raises(NoInputError, match=r"00003\.tar"):
        events(tmp_path / "{00000..00003}.tar")
    with pytest.raises(NoInputError):
        events(tmp_path / "*.zip")
    with pytest.raises(UsageError):
        events(tmp_path / "{0..99999999}.tar")


def test_names_are_cut_at_their_first_dot_as_webdataset_does(tmp_path):
    make_tar(tmp_path / "a.tar", ("dir.v2/x.left.png", png(1)), ("dir.v2/y.png", png(2)))
    names = [item.image_id for item in events(tmp_path / "a.tar")]
    assert names == [f"webdataset/{tmp_path.name}/a/dir.v2/{stem}" for stem in "xy"]


def test_an_extension_can_have_several_parts(tmp_path):
    """As in instruct-pix2pix's shards."""
    make_tar(
        tmp_path / "a.tar",
        ("7.input.jpg", png(1)),
        ("7.output.jpg", png(2)),
        ("7.caption.txt", b"a red boat"),
    )
    note, item = events(tmp_path / "a.tar")
    assert note == Note(NoteKind.IMAGES_BESIDE_THE_FIRST, 1)
    assert (item.read(), item.captions) == (png(1), ("a red boat",))


def test_members_need_not_be_sorted(tmp_path):
    images = [(f"{n}.jpg", png(n)) for n in range(4)]
    texts = [(f"{n}.txt", b"no %d" % n) for n in range(4)]
    make_tar(tmp_path / "a.tar", *images, *reversed(texts))
    assert [item.captions for item in events(tmp_path / "a.tar")] == [
        (f"no {n}",) for n in range(4)
    ]


def test_a_mac_s_files_are_skipped(tmp_path):
    files = [
        (f"./{mark}{n}.{kind}", data)
        for n in range(2)
        for kind, data in (("jpg", png(n)), ("txt", b"x"))
        for mark in ("._", "")
    ]
    make_tar(tmp_path / "a.tar", *files)
    *found, skipped = events(tmp_path / "a.tar")
    assert [item.captions for item in found] == [("x",), ("x",)]
    assert skipped == Ignored(Skip.HIDDEN, 4)


def test_a_text_has_one_caption_a_line(tmp_path):
    make_tar(tmp_path / "a.tar", ("a.jpg", png(1)), ("a.txt", b"\xef\xbb\xbfone\r\n\r\n two\n"))
    assert events(tmp_path / "a.tar")[0].captions == ("one", " two")


def test_captions_in_json_may_be_structs(tmp_path):
    row = {"sentences": [{"raw": "one", "tokens": ["one"]}, {"raw": "two", "tokens": []}], "n": 1}
    make_tar(tmp_path / "a.tar", ("a.jpg", png(1)), ("a.json", json.dumps(row).encode()))
    [item] = events(tmp_path / "a.tar")
    assert (item.captions, item.metadata) == (("one", "two"), {"n": 1})


def test_shards_with_the_same_name_in_several_folders_have_different_ids(tmp_path):
    for language in ("de", "en"):
        (tmp_path / language / "train").mkdir(parents=True)
        make_tar(tmp_path / language / "train" / "0.tar", ("x.png", png(1)))
    pattern = f"{tmp_path}/*/train/*.tar"
    names = [item.image_id for item in events(pattern)]
    assert names == [f"webdataset/{tmp_path.name}/{one}/train/0/x" for one in ("de", "en")]
    alone = [item.image_id for item in events(f"{tmp_path}/en/train/*.tar")]
    assert alone == ["webdataset/train/0/x"]
    named = source_events(f"mine=webdataset:{pattern}")
    assert [item.image_id for item in named] == [
        f"webdataset/mine/{one}/train/0/x" for one in ("de", "en")
    ]


def test_several_images_of_a_sample_are_counted(tmp_path):
    make_tar(tmp_path / "a.tar", ("x.png", png(1)), ("x.jpg", png(2)))
    note, item = events(tmp_path / "a.tar")
    assert note == Note(NoteKind.IMAGES_BESIDE_THE_FIRST, 1)
    assert item.uri.endswith("!x.jpg")


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("../../escape.jpg", {}, Reason.UNSAFE_PATH),
        ("/etc/passwd.jpg", {}, Reason.UNSAFE_PATH),
        ("a\\..\\b.jpg", {}, Reason.UNSAFE_PATH),
        ("link.jpg", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, Reason.UNSAFE_PATH),
        ("hard.jpg", {"type": tarfile.LNKTYPE, "linkname": "x.png"}, Reason.UNSAFE_PATH),
        ("dev.jpg", {"type": tarfile.CHRTYPE, "devmajor": 1}, Reason.UNSAFE_PATH),
        ("pipe.jpg", {"type": tarfile.FIFOTYPE}, Reason.UNSAFE_PATH),
    ],
)
def test_hostile_members_are_rejected_and_the_rest_is_read(name, fields, reason, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, name, b"" if "type" in fields else b"x", **fields)
        add(archive, "good.png", png(1))
    bad, good = events(tmp_path / "a.tar")
    assert isinstance(bad, Rejected)
    assert bad.reason is reason
    assert good.read() == png(1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
    with pytest.raises(ItemError) as caught:
        read_tar_member(str(tmp_path / "a.tar"), name, MAX)
    assert caught.value.reason is reason


def test_a_name_that_occurs_twice_is_rejected(tmp_path):
    make_tar(tmp_path / "a.tar", ("x.png", png(1)), ("x.png", png(2)))
    found = events(tmp_path / "a.tar")
    assert [type(event) for event in found] == [Rejected, SourceItem]
    with pytest.raises(ItemError, match="twice"):
        read_tar_member(str(tmp_path / "a.tar"), "x.png", MAX)


def test_members_are_read_by_their_uri_without_extraction(tmp_path):
    path = make_tar(tmp_path / "a.tar", ("x.png", png(1)), ("y.png", png(2) * 3))
    assert read_tar_member(str(path), "y.png", MAX) == png(2) * 3
    with pytest.raises(ItemError) as missing:
        read_tar_member(str(path), "z.png", MAX)
    assert missing.value.reason is Reason.MISSING
    with pytest.raises(ItemError) as large:
        read_tar_member(str(path), "y.png", 10)
    assert large.value.reason is Reason.TOO_LARGE


def test_a_truncated_or_damaged_shard_is_an_error_that_names_it(tmp_path):
    path = make_tar(tmp_path / "a.tar", *((f"{n}.png", png(n) * 3) for n in range(4)))
    whole = path.read_bytes()
    offsets = [member.offset for member in walk_tar(str(path))]
    for size in (offsets[2] + 5, offsets[2] - 100, 100):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"a\.tar"):
            events(path)
    broken = bytearray(whole)
    broken[offsets[2] - 512] ^= 1  # the third member's header
    path.write_bytes(broken)
    with pytest.raises(DataError, match=r"a\.tar"):
        events(path)


def test_a_compressed_shard_has_a_hint(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        add(archive, "x.png", png(1))
    with pytest.raises(DataError) as caught:
        events(tmp_path / "a.tar")
    assert "gunzip" in caught.value.hint


def test_a_header_that_claims_gigabytes_is_refused(tmp_path):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 3 << 30
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(4 << 30)
    with pytest.raises(DataError, match="header of"):
        events(path)


def test_damaged_texts_lose_the_caption_but_not_the_image(tmp_path):
    make_tar(
        tmp_path / "a.tar",
        ("a.jpg", png(1)),
        ("a.txt", b"\xff\xfe"),
        ("b.jpg", png(2)),
        ("b.json", b'{"cut'),
        ("c.jpg", png(3)),
        ("c.json", b'{"caption": 7, "n": 1}'),
    )
    found = events(tmp_path / "a.tar")
    assert [item.captions for item in found if isinstance(item, SourceItem)] == [()] * 3
    lost = [event for event in found if isinstance(event, Note)]
    assert lost == [Note(NoteKind.UNREADABLE_CAPTION_FILES)] * 3
