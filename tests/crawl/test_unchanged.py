"""If no file of a corpus has changed, the tables of the last crawl are kept."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mmindex.core.config import LimitsConfig, SourceConfig
from mmindex.core.records import NoteKind, QuarantineEntry, Reason
from mmindex.crawl import stage
from mmindex.crawl.metadata import PhotoRules
from mmindex.crawl.stage import CrawlReport, crawl
from mmindex.crawl.unchanged import Crawled
from mmindex.sources.rules import Rules
from mmindex.sources.trees import tree_digest
from mmindex.store.forgotten import NOTHING
from mmindex.store.objects import Objects
from support.corpora import jpeg, new_store, write_files

CAPTIONS = '{"image": "00.jpg", "captions": ["a red square"]}\n'


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two subfolders, a caption list, a note and a broken image."""
    files: dict[str, Any] = {f"{number:02d}.jpg": jpeg(number) for number in range(4)}
    more = {"a/x.jpg": jpeg(7), "a/b/y.jpg": jpeg(8), "a/broken.jpg": b"GIF87 not really"}
    told = {"captions.jsonl": CAPTIONS, "notes.md": "nothing"}
    folder = write_files(tmp_path / "photos", {**files, **more, **told})
    # Files of tests are new; their change times are trusted all the same.
    monkeypatch.setattr("mmindex.crawl.unchanged.RACY_NS", -(10**12))
    return folder


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return new_store(tmp_path / "store")


def crawl_folder(
    objects: Objects, folder: Path, before: CrawlReport | None = None, **options: Any
) -> CrawlReport:
    own = options.pop("source", {})
    known = None if before is None else crawled(before)
    sources = [SourceConfig(spec=f"folder:{folder}", **own)]
    return crawl(objects, sources, LimitsConfig(), before=known, **options)


def crawled(report: CrawlReport) -> Crawled:
    return Crawled(report.images, report.captions, report.sources, report.quarantined)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that are read."""
    read: list[str] = []
    open_source = stage.open_source

    def counted(spec: Any, options: Any) -> Any:
        read.append(str(spec))
        return open_source(spec, options)

    monkeypatch.setattr(stage, "open_source", counted)
    return read


def test_an_unchanged_folder_is_not_listed_as_images(objects, photos, listed):
    first = crawl_folder(objects, photos)
    assert first.quarantined
    listed.clear()
    second = crawl_folder(objects, photos, first)
    third = crawl_folder(objects, photos, second)
    assert listed == []
    assert first == second == third
    assert (second.details["read"], second.details["unchanged"]) == (0, 6)
    assert second.details["sources"][0]["images"] == 6


def change_bytes(folder: Path) -> None:
    """With the same size, time and inode; only the change time differs."""
    path = folder / "01.jpg"
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_ino == status.st_ino


CHANGES: Mapping[str, Callable[[Path], object]] = {
    "bytes": change_bytes,
    "new": lambda folder: (folder / "a" / "new.jpg").write_bytes(jpeg(30)),
    "removed": lambda folder: (folder / "a" / "x.jpg").unlink(),
    "renamed": lambda folder: (folder / "01.jpg").rename(folder / "other.jpg"),
    "moved": lambda folder: (folder / "a" / "x.jpg").rename(folder / "a" / "b" / "x.jpg"),
    "list": lambda folder: (folder / "captions.jsonl").write_text(CAPTIONS.replace("red", "big")),
    "no list": lambda folder: (folder / "captions.jsonl").unlink(),
    "another kind of file": lambda folder: (folder / "notes.txt").write_text("nothing"),
    "permissions": lambda folder: (folder / "01.jpg").chmod(0o600),
    "link": lambda folder: (folder / "link.jpg").symlink_to(folder / "01.jpg"),
    "folder": lambda folder: shutil.move(folder / "a", folder / "c"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_found(objects, photos, listed, name):
    first = crawl_folder(objects, photos)
    time.sleep(0.02)  # longer than a tick of the clock of files
    CHANGES[name](photos)
    listed.clear()
    report = crawl_folder(objects, photos, first)
    assert listed == [f"folder:{photos}"]
    fresh = new_store(objects.layout.root.with_name("fresh"))
    if name != "bytes":  # which the cache of unchanged files does not find
        assert report == crawl_folder(fresh, photos)


@pytest.mark.parametrize(
    "options",
    [
        {"source": {"exclude": ("a/**",)}},
        {"source": {"all_files": True}},
        {"photos": PhotoRules(metadata="none")},
        {"photos": PhotoRules(captions_from="metadata")},
        {"forgotten": NOTHING.including(["folder/photos/01.jpg"], [], [])},
        {"rehash": True},
    ],
)
def test_other_settings_read_the_folder(objects, photos, listed, options):
    first = crawl_folder(objects, photos)
    listed.clear()
    crawl_folder(objects, photos, first, **options)
    assert listed == [f"folder:{photos}"]


def test_another_version_of_pillow_reads_the_folder(objects, photos, listed, monkeypatch):
    first = crawl_folder(objects, photos)
    monkeypatch.setattr("mmindex.crawl.unchanged.version", lambda _name: "99")
    listed.clear()
    crawl_folder(objects, photos, first)
    assert listed


def test_the_result_must_be_that_of_the_last_crawl(objects, photos, listed):
    """A run that ended after its crawl leaves a cache that no version belongs to."""
    first = crawl_folder(objects, photos)
    second = photos / "a" / "new-broken.jpg"
    second.write_bytes(b"GIF87 neither")
    assert len(crawl_folder(objects, photos, first).quarantined) == 2
    listed.clear()
    report = crawl_folder(objects, photos, first)
    assert listed
    assert len(report.quarantined) == 2


def test_other_kinds_of_sources_are_always_read(objects, photos, listed):
    packed = shutil.make_archive(str(photos.with_name("packed")), "zip", photos)
    for _ in range(2):
        sources = [SourceConfig(spec=spec) for spec in (f"folder:{photos}", f"folder:{packed}")]
        report = crawl(objects, sources, LimitsConfig())
        listed.clear()
        crawl(objects, sources, LimitsConfig(), before=crawled(report))
        assert len(listed) == 2


def test_files_that_may_still_change_are_not_trusted(objects, photos, listed, monkeypatch):
    monkeypatch.setattr("mmindex.crawl.unchanged.RACY_NS", 2_000_000_000)
    report = crawl_folder(objects, photos)
    listed.clear()
    crawl_folder(objects, photos, report)
    assert listed
    now = time.time_ns()
    assert tree_digest(str(photos), Rules(), now - 10**10) is None
    assert tree_digest(str(photos), Rules(), now + 10**10) is not None


def test_a_store_in_the_folder_is_left_out(photos):
    before = tree_digest(str(photos), Rules(), 2**62)
    inside = new_store(photos / "store")
    assert tree_digest(str(photos), Rules(), 2**62) == before
    (inside.layout.staging_dir / "new").write_text("x")
    assert tree_digest(str(photos), Rules(), 2**62) == before


def test_results_that_can_change_by_themselves_are_not_recorded(objects, photos):
    report = crawled(crawl_folder(objects, photos))
    assert report.lasts
    for reason in Reason:
        entry = QuarantineEntry("id", "uri", "folder/photos", "crawl", reason, "", "")
        again = {Reason.MISSING, Reason.UNREADABLE, Reason.CHANGED, Reason.DECODER_DIED,
                 Reason.FETCH_FAILED}  # fmt: skip
        assert replace(report, quarantined=(entry,)).lasts == (reason not in again)
    noted = msgspec.structs.replace(report.sources[0], notes={NoteKind.UNREADABLE_SIDECARS: 1})
    assert not replace(report, sources=(noted,)).lasts


def test_a_cache_of_an_earlier_version_or_a_damaged_one_reads_the_folder(objects, photos, listed):
    first = crawl_folder(objects, photos)
    path = objects.layout.stamps_file
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE crawls")
    listed.clear()
    assert crawl_folder(objects, photos, first) == first
    assert listed
    listed.clear()
    assert crawl_folder(objects, photos, first) == first
    assert listed == []
    path.write_bytes(path.read_bytes()[:5000])
    assert crawl_folder(objects, photos, first) == first
    assert listed
