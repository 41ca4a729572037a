"""Reading files in place: URIs, limits, and untrusted zip members."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.records import ItemError, Reason
from mmindex.media.archive import list_members, open_zip, read_file
from mmindex.media.files import uri_of_location
from mmindex.media.places import ImageArchive, ImageFolder, find_place, require_place
from mmindex.media.uris import read_uri
from support.corpora import write_files, write_zip


def reason(path: Path, member: str, max_bytes: int = 1 << 24) -> Reason:
    with pytest.raises(ItemError) as caught:
        read_uri(f"{path}!{member}", max_bytes)
    return caught.value.reason


def test_a_uri_names_a_file_or_a_member(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"plain", "odd.zip!b.jpg": b"mark in the name"})
    packed = write_zip(tmp_path / "p.zip", {"x/y.jpg": b"packed", "in.zip!z.jpg": b"nested mark"})
    assert read_uri(str(tmp_path / "a.jpg")) == b"plain"
    assert read_uri(f"{tmp_path}/odd.zip!b.jpg") == b"mark in the name"
    assert read_uri(f"{packed}!x/y.jpg") == b"packed"
    assert read_uri(f"{packed}!in.zip!z.jpg") == b"nested mark"
    assert list_members(str(packed)) == ["in.zip!z.jpg", "x/y.jpg"]


def test_a_path_that_is_not_utf8_has_a_uri_that_is(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9 !%.jpg"
    with open(raw, "wb") as file:  # noqa: PTH123  # bytes path
        file.write(b"latin-1 name")
    uri = uri_of_location(os.fsdecode(raw))
    assert uri.encode("utf-8").startswith(b"file:///")
    assert read_uri(uri) == b"latin-1 name"


def test_an_archive_under_a_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    packed = write_zip(tmp_path / "plain.zip", {"a.jpg": b"here"})
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.zip")
    packed.rename(path)
    found = ImageArchive(path, ("",), 100).find("a.jpg")
    assert found.read() == b"here"
    assert read_uri(found.uri.encode("utf-8").decode("utf-8")) == b"here"


def test_a_file_is_refused_with_its_own_reason(tmp_path: Path) -> None:
    write_files(tmp_path, {"big": bytes(11), "ok": bytes(10)})
    os.mkfifo(tmp_path / "pipe")
    cases = {"gone": Reason.MISSING, "ok/x": Reason.MISSING, "big": Reason.TOO_LARGE}
    cases |= {"pipe": Reason.UNREADABLE, ".": Reason.UNREADABLE}
    for name, expected in cases.items():
        with pytest.raises(ItemError) as caught:
            read_file(str(tmp_path / name), 10)
        assert caught.value.reason is expected, name
    assert read_file(str(tmp_path / "ok"), 10) == bytes(10)


def test_a_file_that_grows_while_it_is_read_is_read_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fstat = write_files(tmp_path, {"a": b"first"}) / "a", os.fstat

    def grown(descriptor: int) -> os.stat_result:
        status = fstat(descriptor)
        with path.open("ab") as file:
            file.write(b", then more")
        return status

    monkeypatch.setattr("mmindex.media.archive.os.fstat", grown)
    assert read_file(str(path), 100) == b"first, then more"
    with pytest.raises(ItemError) as caught:
        read_file(str(path), 20)
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "locked").touch(mode=0o000)
    with pytest.raises(ItemError) as caught:
        read_file(str(tmp_path / "locked"), 10)
    assert caught.value.reason is Reason.UNREADABLE


def test_a_member_with_a_wrong_crc_is_refused(tmp_path: Path) -> None:
    packed = write_zip(tmp_path / "a.zip", {"good.jpg": b"good bytes", "bad.jpg": b"bad bytes"})
    packed.write_bytes(packed.read_bytes().replace(b"bad bytes", b"BAD bytes", 1))
    assert reason(packed, "bad.jpg") is Reason.BAD_ARCHIVE_MEMBER
    assert read_uri(f"{packed}!good.jpg") == b"good bytes"


def test_a_damaged_compressed_member_is_refused(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        packed = write_zip(tmp_path / f"{method}.zip", {"a": os.urandom(500)}, method)
        data = bytearray(packed.read_bytes())
        data[60:260] = bytes(200)
        packed.write_bytes(data)
        assert reason(packed, "a") is Reason.BAD_ARCHIVE_MEMBER


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    packed = write_zip(tmp_path / "a.zip", {"a.jpg": b"secret"})
    data = bytearray(packed.read_bytes())
    entry = data.index(b"PK\1\2")
    data[entry + 8] |= 1
    data[6] |= 1
    packed.write_bytes(data)
    assert reason(packed, "a.jpg") is Reason.BAD_ARCHIVE_MEMBER


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.jpg", b"second")
        archive.writestr("b.jpg", b"other")
    assert reason(path, "a.jpg") is Reason.BAD_ARCHIVE_MEMBER
    assert read_uri(f"{path}!b.jpg") == b"other"


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """An overlap bomb: a second entry in the table of contents refers to the bytes of the first."""
    packed = write_zip(tmp_path / "a.zip", {"a.jpg": b"shared bytes", "b.jpg": b"its own bytes"})
    data = bytearray(packed.read_bytes())
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[second + 42 : second + 46] = struct.pack("<I", 0)
    packed.write_bytes(data)
    assert reason(packed, "a.jpg") is Reason.BAD_ARCHIVE_MEMBER
    assert reason(packed, "b.jpg") is Reason.BAD_ARCHIVE_MEMBER


def test_absurd_compression_is_refused_before_decompression(tmp_path: Path) -> None:
    packed = write_zip(tmp_path / "a.zip", {"a.bmp": bytes(3 << 20)}, zipfile.ZIP_DEFLATED)
    assert reason(packed, "a.bmp") is Reason.BAD_ARCHIVE_MEMBER
    assert reason(packed, "a.bmp", max_bytes=1 << 20) is Reason.TOO_LARGE


def test_links_and_devices_in_an_archive_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO):
            info = zipfile.ZipInfo(f"{kind}.jpg")
            info.external_attr = (kind | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    for name in list_members(str(path)):
        assert reason(path, name) is Reason.UNSAFE_PATH


def test_a_file_that_is_not_a_zip_ends_the_run_by_name(tmp_path: Path) -> None:
    """The page of a captive portal instead of the archive."""
    path = tmp_path / "val2017.zip"
    path.write_text("<html>sign in</html>")
    with pytest.raises(DataError, match=r"val2017\.zip: not a readable zip"):
        open_zip(str(path))


def test_an_archive_that_was_replaced_is_opened_again(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.jpg": b"old"})
    assert read_uri(f"{path}!a.jpg") == b"old"
    write_zip(tmp_path / "b.zip", {"a.jpg": b"newer"}).replace(path)
    assert read_uri(f"{path}!a.jpg") == b"newer"


HOSTILE = [
    "../a.jpg",
    "x/../../a.jpg",
    "/etc/passwd",
    "..\\a.jpg",
    "\\\\host\\a.jpg",
    "",
    "a\0.jpg",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_leaves_the_folder_is_refused_in_folders_and_archives(
    tmp_path: Path, name: str
) -> None:
    write_files(tmp_path, {"in/a.jpg": b"in", "a.jpg": b"out"})
    packed = write_zip(tmp_path / "in.zip", {"in/a.jpg": b"in", "../a.jpg": b"out"})
    for place in (ImageFolder(tmp_path / "in", 100), ImageArchive(str(packed), ("in/", ""), 100)):
        with pytest.raises(ItemError) as caught:
            place.find(name)
        assert caught.value.reason is Reason.UNSAFE_PATH
        assert isinstance(place.uri(name), str)


def test_links_inside_the_folder_are_followed_and_links_out_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"in/a.jpg": b"in", "out.jpg": b"out", "outside/b.jpg": b"out"})
    folder = tmp_path / "in"
    (folder / "same.jpg").symlink_to("a.jpg")
    (folder / "leak.jpg").symlink_to("../out.jpg")
    (folder / "sub").symlink_to("../outside")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    place = ImageFolder(folder, 100)
    assert place.find("same.jpg").read() == b"in"
    for name, expected in {
        "leak.jpg": Reason.UNSAFE_PATH,
        "sub/b.jpg": Reason.UNSAFE_PATH,
        "loop.jpg": Reason.UNREADABLE,
        "none.jpg": Reason.MISSING,
    }.items():
        with pytest.raises(ItemError) as caught:
            place.find(name)
        assert caught.value.reason is expected, name


def test_a_root_that_is_itself_a_link_is_fine(tmp_path: Path) -> None:
    """Corpora are often symbolic links to a larger disk."""
    write_files(tmp_path, {"big/a.jpg": b"in"})
    (tmp_path / "val2017").symlink_to("big")
    place = require_place(tmp_path, ("val2017",), 100)
    assert place.find("a.jpg").read() == b"in"


def test_missing_places_are_named(tmp_path: Path) -> None:
    assert find_place(tmp_path, ("val2017", "images/val2017"), 100) is None
    with pytest.raises(NoInputError) as caught:
        require_place(tmp_path, ("val2017",), 100)
    assert "val2017/ or val2017.zip" in caught.value.hint
