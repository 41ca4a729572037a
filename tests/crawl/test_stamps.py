"""A second crawl reads only what has changed."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from mmindex.core.config import LimitsConfig, SourceConfig
from mmindex.core.errors import DataError, StorageError
from mmindex.crawl.stage import CrawlReport, crawl
from mmindex.crawl.stamps import Known, Stamps
from mmindex.media import archive
from mmindex.store.forgotten import Forgotten
from mmindex.store.objects import Objects
from mmindex.store.purge import open_stamps, purge_stamps
from support.corpora import jpeg, new_store, rows_of, write_files, write_zip

LONG_AGO_NS = 1_600_000_000_000_000_000


def age(folder: Path) -> None:
    """Make every file old enough for its modification time to be reliable."""
    for path in folder.rglob("*"):
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = write_files(tmp_path / "photos", {f"{n:02d}.jpg": jpeg(n) for n in range(12)})
    age(folder)
    return folder


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return new_store(tmp_path / "store")


@pytest.fixture
def read_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened for reading."""
    names: list[str] = []
    read_file = archive.read_file

    def counted(path: str, max_bytes: int) -> bytes:
        names.append(Path(path).name)
        return read_file(path, max_bytes)

    monkeypatch.setattr(archive, "read_file", counted)
    return names


def crawl_folder(objects: Objects, folder: Path, *, rehash: bool = False) -> CrawlReport:
    return crawl(objects, [SourceConfig(spec=f"folder:{folder}")], LimitsConfig(), rehash=rehash)


def test_unchanged_files_are_not_read_again(objects, photos, read_names):
    first = crawl_folder(objects, photos)
    assert sorted(read_names) == sorted(path.name for path in photos.iterdir())
    read_names.clear()
    second = crawl_folder(objects, photos)
    third = crawl_folder(objects, photos)
    assert read_names == []
    assert first == second == third
    assert (second.details["read"], second.details["unchanged"]) == (0, 12)


def test_only_added_changed_and_renamed_files_are_read(objects, photos, read_names):
    crawl_folder(objects, photos)
    (photos / "00.jpg").unlink()
    (photos / "01.jpg").rename(photos / "renamed.jpg")
    (photos / "02.jpg").write_bytes(jpeg(50))
    (photos / "new.jpg").write_bytes(jpeg(51))
    read_names.clear()
    report = crawl_folder(objects, photos)
    assert sorted(read_names) == ["02.jpg", "new.jpg", "renamed.jpg"]
    fresh = new_store(objects.layout.root.with_name("fresh"))
    assert report == crawl_folder(fresh, photos), "not what a first crawl of the folder finds"
    images, _ = rows_of(objects, report)
    assert [row["uri"].rpartition("/")[2] for row in images] == sorted(
        path.name for path in photos.iterdir()
    )


def test_a_changed_time_alone_does_not_change_the_corpus(objects, photos, read_names):
    first = crawl_folder(objects, photos)
    read_names.clear()
    os.utime(photos / "03.jpg", ns=(LONG_AGO_NS + 1, LONG_AGO_NS + 1))
    assert crawl_folder(objects, photos) == first
    assert read_names == ["03.jpg"]


def test_a_replaced_file_that_looks_the_same_is_found_by_rehash_only(objects, photos, read_names):
    first = crawl_folder(objects, photos)
    path = photos / "04.jpg"
    other = jpeg(99).ljust(path.stat().st_size, b"\0")[: path.stat().st_size]
    assert len(other) == len(path.read_bytes())
    path.write_bytes(other)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert crawl_folder(objects, photos) == first
    read_names.clear()
    assert crawl_folder(objects, photos, rehash=True) != first
    assert len(read_names) == 12


def test_a_file_that_was_just_written_is_read_again(objects, photos, read_names):
    """Within one clock tick of the file system, a second change would not be noticed."""
    for when_ns in (time.time_ns(), time.time_ns() + 3_600_000_000_000):
        os.utime(photos / "05.jpg", ns=(when_ns, when_ns))
        crawl_folder(objects, photos)
        read_names.clear()
        crawl_folder(objects, photos)
        assert read_names == ["05.jpg"]


def test_members_of_an_unchanged_archive_are_not_read(objects, tmp_path, monkeypatch):
    corpus = tmp_path / "coco"
    content = (
        '{"images": [{"id": 1, "file_name": "1.jpg"}], '
        '"annotations": [{"image_id": 1, "caption": "a"}]}'
    )
    write_files(corpus, {"annotations/captions_val2017.json": content})
    write_zip(corpus / "val2017.zip", {"1.jpg": jpeg(1)})
    age(corpus)
    source = [SourceConfig(spec=f"coco:{corpus}")]
    first = crawl(objects, source, LimitsConfig())
    monkeypatch.setattr(archive, "read_member", lambda *_: pytest.fail("read again"))
    assert crawl(objects, source, LimitsConfig()) == first


def test_changed_limits_check_every_file_again(objects, photos, read_names):
    crawl_folder(objects, photos)
    read_names.clear()
    source = [SourceConfig(spec=f"folder:{photos}")]
    report = crawl(objects, source, LimitsConfig(max_pixels=100))
    assert len(read_names) == 12
    assert {str(entry.reason) for entry in report.quarantined} == {"too_large"}


def test_the_cache_is_rewritten_only_if_its_content_changes(objects, photos):
    def written() -> tuple[int, bytes]:
        crawl_folder(objects, photos)
        cache = objects.layout.stamps_file
        return cache.stat().st_ino, cache.read_bytes()

    first = written()
    assert written() == first
    (photos / "06.jpg").unlink()
    fewer = written()
    assert fewer[0] != first[0]
    assert written() == fewer


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 100, None])
def test_a_damaged_cache_only_costs_time(objects, photos, read_names, damage):
    first = crawl_folder(objects, photos)
    cache = objects.layout.stamps_file
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    read_names.clear()
    assert crawl_folder(objects, photos) == first
    assert len(read_names) == 12
    read_names.clear()
    assert crawl_folder(objects, photos) == first
    assert read_names == []


def test_damaged_text_in_an_error_of_sqlite_only_costs_time(objects, photos, read_names):
    """SQLite quotes the text of a damaged schema, and Python cannot decode the message."""
    first = crawl_folder(objects, photos)
    cache = objects.layout.stamps_file
    damaged = cache.read_bytes().replace(b"CREATE TABLE rules", b"CREATE \xc1ABLE rules")
    cache.write_bytes(damaged)
    with closing(open_stamps(cache)) as database, pytest.raises(UnicodeDecodeError):
        database.execute("SELECT text FROM rules")
    read_names.clear()
    assert crawl_folder(objects, photos) == first
    assert len(read_names) == 12
    cache.write_bytes(damaged)
    purge_stamps(objects.layout, Forgotten(frozenset(), frozenset()))
    assert not cache.exists()


def test_a_cache_that_cannot_be_opened_only_costs_time(objects, photos, read_names, monkeypatch):
    first = crawl_folder(objects, photos)
    connect = sqlite3.connect

    def broken(place, **options):
        if "uri" in options:
            raise sqlite3.OperationalError("disk I/O error")
        return connect(place, **options)

    monkeypatch.setattr(sqlite3, "connect", broken)
    read_names.clear()
    assert crawl_folder(objects, photos) == first
    assert len(read_names) == 12


def test_a_flipped_bit_in_the_cache_is_seen(objects, photos, read_names):
    first = crawl_folder(objects, photos)
    cache = objects.layout.stamps_file
    images, _ = rows_of(objects, first)
    key = bytes.fromhex(images[6]["key"])
    data = cache.read_bytes()
    assert data.count(key) == 1
    cache.write_bytes(data.replace(key, bytes([key[0] ^ 1]) + key[1:]))
    read_names.clear()
    assert crawl_folder(objects, photos) == first
    assert read_names == ["06.jpg"]


@pytest.mark.parametrize("failure", [DataError("x"), KeyboardInterrupt()])
def test_an_interrupted_crawl_adds_what_it_read_to_the_cache(objects, failure):
    stamp, known = (5, LONG_AGO_NS, 1), Known("ab" * 32, 3, 4, "PNG", 5)
    with Stamps(objects.layout, "rules") as stamps:
        stamps.add("/old.png", stamp, known)
        stamps.add("/both.png", stamp, known)
    newer = Known("cd" * 32, 3, 4, "PNG", 5)
    with pytest.raises(type(failure)), Stamps(objects.layout, "rules") as stamps:
        stamps.add("/both.png", stamp, newer)
        stamps.add("/new.png", stamp, newer)
        raise failure
    with Stamps(objects.layout, "rules") as stamps:
        found = [stamps.find(f"/{name}.png", stamp) for name in ("old", "both", "new")]
    assert found == [known, newer, newer]
    assert not list(objects.layout.staging_dir.iterdir())


def test_a_full_disk_leaves_the_cache_unchanged(objects, photos):
    crawl_folder(objects, photos)
    before = objects.layout.stamps_file.read_bytes()
    with pytest.raises(StorageError), Stamps(objects.layout, "other rules") as stamps:
        stamps._now.execute("PRAGMA max_page_count = 1")  # it cannot grow
        for n in range(1_000):
            stamps.add(f"/{n}.jpg", (1, LONG_AGO_NS, 1), Known("00" * 32, 1, 1, "PNG", 1))
    assert objects.layout.stamps_file.read_bytes() == before
    assert not list(objects.layout.staging_dir.iterdir())


def test_inodes_beyond_63_bits_are_remembered(objects):
    """Network file systems use 64-bit hashes as inodes."""
    stamp = (5, LONG_AGO_NS, 2**64 - 2)
    known = Known("ab" * 32, 3, 4, "PNG", 5)
    with Stamps(objects.layout, "rules") as stamps:
        stamps.add("/x.png", stamp, known)
    with Stamps(objects.layout, "rules") as stamps:
        assert stamps.find("/x.png", stamp) == known
        assert stamps.find("/x.png", (5, LONG_AGO_NS, 1)) is None
