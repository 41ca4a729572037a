"""`check --full` names every place that still contains a forgotten item."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmindex.core.records import QuarantineEntry, Reason
from mmindex.fetch.images import Fetched
from mmindex.fetch.outcome import FetchStatus
from mmindex.fetch.shards import ShardWriter
from mmindex.store import publish, quarantine, versions
from mmindex.store.forgotten import NOTHING, digest, read_forgotten, rows_among, write_forgotten
from mmindex.store.layout import Layout
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.purge import mentions
from mmindex.store.snapshot import Snapshot
from mmindex.upkeep.check import check
from support.corpora import jpeg
from support.fakestore import fast_folder
from support.forgetting import ID, build, forget_ids, opened
from support.manifests import manifest as empty_manifest

KEY = hashlib.sha256(jpeg(3)).hexdigest()


@pytest.fixture
def layout() -> Iterator[Layout]:
    """An intact store that has forgotten ``ID``."""
    with fast_folder() as place:
        build(place)
        forget_ids(place)
        layout = opened(place)[0]
        assert check(layout.root, full=True).problems == ()
        yield layout


def problems(layout: Layout) -> str:
    return "\n".join(check(layout.root, full=True).problems)


def publish_with(layout: Layout, ref: ObjectRef) -> None:
    """Publish the current version with one object replaced."""
    manifest = versions.read_current(layout)
    assert manifest is not None
    objects = tuple(ref if old.name == ref.name else old for old in manifest.objects)
    versions.publish_version(
        Objects(layout),
        msgspec.structs.replace(
            manifest, version=manifest.version + 1, parent=manifest.version, objects=objects
        ),
    )


def changed_table(layout: Layout, name: str, **values: str) -> ObjectRef:
    """Return the published table ``name`` with other values in its first row."""
    objects, manifest = Objects(layout), versions.read_current(layout)
    assert manifest is not None
    ref = manifest.find(name)
    assert ref is not None
    table = objects.read_table(ref)
    rows = table.to_pylist()
    rows[0] |= values
    return objects.write_table(
        name, table.schema, [pa.Table.from_pylist(rows, schema=table.schema)]
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("crawl/images", {"key": KEY}),
        ("images", {"image_id": ID}),
        ("captions", {"image_id": ID}),
        ("crawl/captions", {"image_id": ID}),
        ("ids/image", {"key": KEY}),
        ("embeddings/image/00000", {"key": KEY}),
    ],
)
def test_a_table_of_a_version(layout: Layout, name: str, values: dict[str, str]) -> None:
    ref = changed_table(layout, name, **values)
    publish_with(layout, ref)
    assert f"{layout.object(ref.sha256)} ({name}): contains 1 forgotten" in problems(layout)


@pytest.mark.parametrize("entry", [{"id": ID}, {"key": KEY}])
def test_the_quarantine_table_and_its_ledger(layout: Layout, entry: dict[str, str]) -> None:
    base = QuarantineEntry("x", "/x.jpg", "folder/photos", "crawl", Reason.EMPTY, "", "")
    entries = [replace(base, **entry)]
    quarantine.write_ledger(layout, entries)
    assert f"{layout.quarantine_file}: contains 1 forgotten" in problems(layout)
    quarantine.write_ledger(layout, [])
    publish_with(layout, quarantine.write_entries(Objects(layout), "quarantine", entries))
    assert "(quarantine): contains 1 forgotten" in problems(layout)


def test_a_shard_s_list_of_failures(layout: Layout) -> None:
    objects = Objects(layout)
    ref = changed_table(layout, "embeddings/image/00000")
    table = objects.read_table(ref)
    metadata = {**table.schema.metadata, b"mmindex.failed": json.dumps({KEY: ["empty", ""]})}
    schema = table.schema.with_metadata(metadata)
    publish_with(layout, objects.write_table(ref.name, schema, [table.cast(schema)]))
    assert "(embeddings/image/00000): contains 1 forgotten" in problems(layout)


def test_the_list_of_unchanged_files(layout: Layout) -> None:
    with sqlite3.connect(layout.stamps_file) as database:
        database.execute("UPDATE files SET key = ? WHERE uri LIKE '%p4.jpg'", (bytes.fromhex(KEY),))
    database.close()
    assert f"{layout.stamps_file}: contains 1 forgotten" in problems(layout)


def test_a_shard_of_fetched_images(layout: Layout) -> None:
    folder = layout.downloads_dir / "fetched"
    publish.make_directory(folder)
    with ShardWriter(layout, folder, 0) as shard:
        fetched = Fetched("http://a.example/3.jpg", FetchStatus.STORED, "", 200, 1, "", KEY, b"x")
        shard.add(fetched, True, 0)
        shard.publish()
    assert "000000.parquet: contains 1 forgotten" in problems(layout)
    forget_ids(layout.root.parent)  # the same id again takes it out
    assert problems(layout) == ""
    assert pq.read_table(folder / "000000.parquet").to_pylist()[0]["url"] == ""


@pytest.mark.parametrize("text", [ID, f"{ID}: changed", f"({ID})", f"bytes {KEY} differ"])
def test_a_report_of_a_run(layout: Layout, text: str) -> None:
    path = layout.run("20250101T000000-old")
    path.write_text(json.dumps({"error": {"message": text}, "seen": [1, {"x": None}]}))
    assert f"{path}: contains 1 forgotten" in problems(layout)
    forget_ids(layout.root.parent)
    assert problems(layout) == ""
    assert "(forgotten)" in path.read_text()


def test_a_damaged_list_stops_commands_that_need_it(layout: Layout) -> None:
    manifest = versions.read_current(layout)
    assert manifest is not None
    ref = manifest.find("forgotten")
    assert ref is not None
    path = layout.object(ref.sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert str(path) in problems(layout)
    with pytest.raises(Exception, match="damaged"):
        build(layout.root.parent)


def test_the_same_list_has_the_same_bytes(tmp_path: Path) -> None:
    objects = Objects(versions.create_layout(tmp_path / "store"))
    first = NOTHING.including(["a", "b"], [KEY], ["http://x"])
    second = NOTHING.including(["b"], [], ["http://x"]).including(["a"], [KEY], [])
    assert first == second
    assert write_forgotten(objects, first) == write_forgotten(objects, second)
    assert not NOTHING
    assert first.has_id("a")
    assert not first.has_id("A")
    assert first.has_key(KEY)
    assert first.has_address("http://x")
    assert not NOTHING.has_id("a")


def test_a_version_without_a_list_has_forgotten_nothing(tmp_path: Path) -> None:
    objects = Objects(versions.create_layout(tmp_path / "store"))
    assert read_forgotten(Snapshot(objects, empty_manifest())) == NOTHING


def test_values_of_a_column_are_compared_by_digest() -> None:
    column = pa.array(["a", None, "", "é"])
    assert rows_among(column, frozenset({digest("é"), digest("")})).tolist() == [
        False,
        False,
        True,
        True,
    ]


def test_damaged_reports_mention_nothing() -> None:
    assert mentions(b"{", NOTHING.including([ID], [], [])) == set()
