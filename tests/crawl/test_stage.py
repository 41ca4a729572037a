"""The crawl stage: files are read once, rows are counted, equal input has equal results."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmindex.core.config import LimitsConfig, SourceConfig
from mmindex.core.errors import DataError, NoInputError, StorageError, UsageError
from mmindex.core.records import ImageRow
from mmindex.crawl import spool
from mmindex.crawl import stage as crawl
from mmindex.crawl.spool import Kept, Spool
from mmindex.media.uris import read_uri
from support.corpora import (
    coco_content,
    crawl_specs,
    jpeg,
    new_store,
    rows_of,
    write_coco,
    write_files,
)


def photos(folder: Path, count: int = 4, **more: bytes | str) -> Path:
    images: dict[str, bytes | str] = {f"{n}.jpg": jpeg(n) for n in range(count)}
    return write_files(folder, images | more)


def modified(path: Path) -> datetime:
    """Return the modification time of a file in UTC, as in its row."""
    return datetime(1970, 1, 1) + timedelta(microseconds=path.stat().st_mtime_ns // 1000)


def test_rows_have_key_size_and_header_values(tmp_path: Path) -> None:
    objects = new_store(tmp_path / "store")
    folder = write_coco(tmp_path / "coco", coco_content({1: ["a", "b"], 2: ["a"]}), count=2)
    report = crawl_specs(objects, f"coco:{folder}")
    images, captions = rows_of(objects, report)
    data = jpeg(1)
    assert images[0] == {
        "image_id": "coco/val2017/000000000001",
        "key": hashlib.sha256(data).hexdigest(),
        "source": "coco",
        "uri": f"{folder}/val2017/000000000001.jpg",
        "split": "val2017",
        "width": 48,
        "height": 40,
        "format": "JPEG",
        "size_bytes": len(data),
        "filename": "000000000001.jpg",
        "flickr_url": "u1",
        "folder": "",
        "license": "Attribution License",
        "modified": modified(folder / "val2017" / "000000000001.jpg"),
    }
    key = hashlib.sha256(b"a").hexdigest()
    assert [(row["caption_id"], row["text"], row["key"] == key) for row in captions] == [
        ("coco/val2017/000000000001#0", "a", True),
        ("coco/val2017/000000000001#1", "b", False),
        ("coco/val2017/000000000002#0", "a", True),
    ]
    assert read_uri(images[0]["uri"]) == data


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    folder = photos(
        tmp_path / "f", **{"bad.jpg": b"", "x.png": b"no picture", "a.doc": b"", "bad.txt": "lost"}
    )
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, f"folder:{folder}")
    assert (report.seen, report.images.rows, report.ignored) == (7, 4, 1)
    assert [(entry.id, entry.reason, entry.stage) for entry in report.quarantined] == [
        ("folder/f/bad.jpg", "empty", "crawl"),
        ("folder/f/x.png", "not_an_image", "crawl"),
    ]
    assert report.quarantined[1].key == hashlib.sha256(b"no picture").hexdigest()
    (summary,) = report.sources
    assert summary.seen == summary.images + summary.quarantined + summary.ignored == 7
    assert summary.notes == {
        "captions_of_rejected_images": 1,
        "ignored: not an image by its extension": 1,
    }


def test_unchanged_sources_give_the_same_objects_and_fingerprint(tmp_path: Path) -> None:
    """Also in another store, and independently of which thread reads a file first."""
    folder = photos(tmp_path / "f", 40)
    first = crawl_specs(new_store(tmp_path / "one"), f"folder:{folder}")
    second = crawl_specs(new_store(tmp_path / "two"), f"folder:{folder}")
    assert first == second
    (folder / "7.txt").write_text("now with a caption")
    third = crawl_specs(new_store(tmp_path / "one"), f"folder:{folder}")
    assert third.images == first.images
    assert third.corpus_fingerprint != first.corpus_fingerprint


def test_the_same_bytes_under_two_names_are_two_rows_with_one_key(tmp_path: Path) -> None:
    folder = photos(tmp_path / "f", 1, **{"copy.jpg": jpeg(0)})
    objects = new_store(tmp_path / "store")
    images, _ = rows_of(objects, crawl_specs(objects, f"folder:{folder}"))
    assert len(images) == 2
    assert len({row["key"] for row in images}) == 1


def test_two_folders_with_the_same_name_keep_all_their_images(tmp_path: Path) -> None:
    one = photos(tmp_path / "a" / "f", 2, **{"1.txt": "first"})
    two = photos(tmp_path / "b" / "f", 3, **{"1.txt": "second"})
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, f"folder:{one}", f"folder:{two}")
    images, captions = rows_of(objects, report)
    assert [row["image_id"] for row in images] == [
        *(f"folder/f/{n}.jpg" for n in range(2)),
        *(f"folder/b-f/{n}.jpg" for n in range(3)),
    ]
    assert [row["text"] for row in captions] == ["first", "second"]
    assert [summary.name for summary in report.sources] == ["folder/f", "folder/b-f"]


def table(path: Path, **columns: list[object]) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def test_two_images_with_one_id_are_reported_with_both_places(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", image=[jpeg(1), jpeg(2)], id=["x", "x"])
    report = crawl_specs(new_store(tmp_path / "store"), f"parquet:{path}")
    [entry] = report.quarantined
    assert (entry.reason, entry.uri) == ("duplicate_id", f"{path}!image/1")
    assert f"{path}!image/0" in entry.detail


@pytest.mark.parametrize("with_ids", [True, False])
def test_rows_of_the_same_image_are_one_with_all_its_captions(
    tmp_path: Path, with_ids: bool
) -> None:
    """One row for each caption: 3 images, 4 captions each, rows mixed, one caption repeated."""
    rows = [(n, k) for k in range(4) for n in range(3)] + [(0, 0)]
    columns: dict[str, list[object]] = {
        "image": [jpeg(n) for n, _ in rows],
        "caption": [f"{n} {k}" for n, k in rows],
    }
    if with_ids:
        columns["image_id"] = [n for n, _ in rows]
    path = table(tmp_path / "d" / "t.parquet", **columns)
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, f"parquet:{path}")
    images, captions = rows_of(objects, report)
    assert [row["image_id"] for row in images] == [f"parquet/d/t/{n}" for n in range(3)]
    assert [(row["caption_id"], row["text"]) for row in captions] == [
        (f"parquet/d/t/{n}#{k}", f"{n} {k}") for n in range(3) for k in range(4)
    ]
    [summary] = report.sources
    assert summary.seen == summary.images + summary.ignored == 13
    assert (summary.images, summary.captions, summary.quarantined) == (3, 12, 0)


def test_lists_are_columns_of_lists(tmp_path: Path) -> None:
    rows = [
        {"file_name": "0.jpg", "tags": ["art", "museum"], "sizes": [1, 2.5], "any": ["x"]},
        {"file_name": "1.jpg", "tags": [], "sizes": None, "any": 7},
    ]
    text = "\n".join(map(json.dumps, rows))
    folder = photos(tmp_path / "f", 2, **{"captions.jsonl": text})
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, f"folder:{folder}")
    schema = objects.read_table(report.images).schema
    assert [str(schema.field(name).type) for name in ("tags", "sizes", "any")] == [
        "list<element: string>",
        "list<element: double>",
        "string",
    ]
    images, _ = rows_of(objects, report)
    assert [row["tags"] for row in images] == [["art", "museum"], []]
    assert [row["any"] for row in images] == ['["x"]', "7"]


def test_a_column_of_several_types_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"file_name": "0.jpg", "a": 1, "b": 1}, {"file_name": "1.jpg", "a": "x", "b": 0.5}]
    text = "\n".join(map(json.dumps, rows))
    folder = photos(tmp_path / "f", 2, **{"captions.jsonl": text})
    crawl_specs(new_store(tmp_path / "store"), f"folder:{folder}")
    [told] = [record.getMessage() for record in caplog.records if "try_cast" in record.getMessage()]
    assert "columns=a" in told.replace("'", "")


def test_unmatched_captions_cause_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = photos(tmp_path / "f", 2, **{"captions.txt": "x.jpg\tone\ny.jpg\ttwo\n"})
    crawl_specs(new_store(tmp_path / "store"), f"folder:{folder}")
    assert "captions without a matching image" in caplog.text


def test_globs_that_no_source_supports_are_refused(tmp_path: Path) -> None:
    coco = write_coco(tmp_path / "coco", coco_content({1: ["a"]}), count=1)
    source = SourceConfig(spec=f"coco:{coco}", exclude=("*.png",))
    with pytest.raises(UsageError, match="`exclude`"):
        crawl.crawl(new_store(tmp_path / "store"), [source], LimitsConfig())


def test_metadata_is_the_union_over_sources(tmp_path: Path) -> None:
    coco = write_coco(tmp_path / "coco", coco_content({1: ["a"]}), count=1)
    rows = [
        {"file_name": "0.jpg", "title": "T", "likes": 3, "width": 9, "mixed": 1},
        {"file_name": "1.jpg", "title": None, "likes": 0.5, "mixed": "x"},
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    folder = photos(tmp_path / "f", 2, **{"captions.jsonl": text})
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, f"coco:{coco}", f"folder:{folder}")
    schema = objects.read_table(report.images).schema
    own = {field.name: str(field.type) for field in schema}
    assert list(own)[9:] == [
        "filename", "flickr_url", "folder", "license", "likes", "meta_width", "mixed", "modified",
        "title",
    ]  # fmt: skip
    assert own["likes"] == "double"
    assert own["mixed"] == "string"
    images, _ = rows_of(objects, report)
    assert [row["mixed"] for row in images] == [None, "1", "x"]
    assert [row["license"] for row in images] == ["Attribution License", None, None]


def test_a_corpus_without_images_has_empty_tables(tmp_path: Path) -> None:
    objects = new_store(tmp_path / "store")
    (tmp_path / "f").mkdir()
    report = crawl_specs(objects, f"folder:{tmp_path}/f")
    assert (report.seen, report.images.rows, report.captions.rows) == (0, 0, 0)
    assert rows_of(objects, report) == ([], [])


def test_a_missing_source_is_reported_before_another_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos(tmp_path / "f")
    monkeypatch.setattr(crawl, "open_source", lambda *_: pytest.fail("read too early"))
    objects = new_store(tmp_path / "store")
    with pytest.raises(NoInputError, match="gone"):
        crawl_specs(objects, f"folder:{folder}", f"folder:{tmp_path}/gone")
    with pytest.raises(UsageError):
        crawl_specs(objects, f"folder:{folder}", "hearsay:list.csv")


def test_the_limits_of_an_image_apply(tmp_path: Path) -> None:
    folder = photos(tmp_path / "f", 2, **{"big.png": os.urandom(5_000)})
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, f"folder:{folder}", max_bytes=4_000)
    assert [(entry.id, entry.reason) for entry in report.quarantined] == [
        ("folder/f/big.png", "too_large")
    ]
    report = crawl_specs(objects, f"folder:{folder}", max_pixels=100)
    assert {str(entry.reason) for entry in report.quarantined} == {"too_large", "not_an_image"}


def test_a_run_that_fails_leaves_nothing_in_staging(tmp_path: Path) -> None:
    objects = new_store(tmp_path / "store")
    folder = write_coco(tmp_path / "coco", b'{"images": [')
    with pytest.raises(DataError):
        crawl_specs(objects, f"folder:{photos(tmp_path / 'f')}", f"coco:{folder}")
    assert not list(objects.layout.staging_dir.iterdir())


def test_long_captions_are_written_in_bounded_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_BATCH_CHARS", 1_000)
    texts = [f"{n}" * 400 for n in range(8)]
    folder = write_coco(tmp_path / "coco", coco_content({1: texts}), count=1)
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, f"coco:{folder}")
    with objects.open_parquet(report.captions) as file:
        assert file.num_row_groups == 3
    assert [row["text"] for row in rows_of(objects, report)[1]] == texts


@pytest.mark.parametrize("what", ["images", "captions"])
def test_a_full_disk_while_rows_wait_is_a_storage_error(tmp_path: Path, what: str) -> None:
    objects = new_store(tmp_path / "store")
    with Spool(objects.layout) as one:
        one._database.execute("PRAGMA max_page_count = 1")  # it cannot grow
        with pytest.raises(StorageError, match="full"):
            for n in range(10_000):
                if what == "images":
                    one.add_image(ImageRow(f"{n}", "k", "s", "u", "all", 1, 1, "PNG", 1))
                else:
                    one.add_captions(Kept(n + 1, "i", is_new=True), [(0, "text")])
    assert not list(objects.layout.staging_dir.iterdir())


def test_rows_can_wait_in_another_folder_where_nothing_stays(tmp_path: Path) -> None:
    objects, scratch = new_store(tmp_path / "store"), tmp_path / "scratch"
    scratch.mkdir()
    source = SourceConfig(spec=f"folder:{photos(tmp_path / 'f')}")
    here = crawl.crawl(objects, [source], LimitsConfig())
    assert crawl.crawl(objects, [source], LimitsConfig(), scratch=scratch) == here
    with Spool(objects.layout, scratch) as one:  # nor if the process is killed now
        one.add_image(ImageRow("1", "k", "s", "u", "all", 1, 1, "PNG", 1))
        assert not list(scratch.iterdir())
    with pytest.raises(StorageError, match="missing") as caught:
        Spool(objects.layout, tmp_path / "missing")
    assert "`scratch`" in caught.value.hint


def test_all_awkward_files_are_indexed_or_refused(real_photos: Path, tmp_path: Path) -> None:
    """82 files: damaged headers go to quarantine here, damaged pixels when they are decoded."""
    objects = new_store(tmp_path / "store")
    source = SourceConfig(spec=f"folder:{real_photos}/awkward/files", all_files=True)
    report = crawl.crawl(objects, [source], LimitsConfig())
    assert (report.seen, len(report.quarantined), report.images.rows) == (82, 21, 61)
    assert all(entry.detail for entry in report.quarantined)
