"""Rows of a table are found by key or id, with the same result as by reading the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmindex.core.errors import DataError
from mmindex.store import rows as rows_module
from mmindex.store.objects import Objects
from mmindex.store.rows import Rows
from mmindex.store.snapshot import Snapshot
from support.stores import captions_table, images_table, key_of, make_store

ODD = "a \ud83d name"
NAMES = ["b", "a", ODD, "", "c" * 300, "a2"]
COLUMNS = ["image_id", "key", "uri"]


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """Rows 0 and 3 have the same key; there are two rows in a row group."""
    keys = [key_of(name) for name in NAMES]
    keys[3] = keys[0]
    images = images_table([(name, keys[row], f"/{row}") for row, name in enumerate(NAMES)])
    return make_store(tmp_path, images, captions_table([("a", "x")]), {}, None, group_rows=2)


def rows_of(snapshot: Snapshot) -> Rows:
    return Rows(snapshot.objects, snapshot.manifest.require("images"), ("image_id", "uri"))


@pytest.mark.parametrize("most", [1 << 20, 0], ids=["in memory", "by row group"])
def test_rows_with_a_key_are_found_in_the_order_of_the_table(snapshot, most, monkeypatch):
    monkeypatch.setattr(rows_module, "_MOST_TEXT", most)
    wanted = {key_of("b"), key_of(ODD), key_of("nobody")}
    found = rows_of(snapshot).select(COLUMNS, "key", wanted)
    assert found is not None
    assert list(found) == [
        ("b", key_of("b"), "/0"),
        (ODD, key_of(ODD), "/2"),
        ("", key_of("b"), "/3"),
    ]


def test_rows_are_found_by_any_text_in_memory(snapshot):
    rows = rows_of(snapshot)
    for wanted in ({"a", "", "x"}, set(NAMES), {ODD}, {"c" * 300, "a2", "cc"}):
        found = rows.select(["image_id"], "image_id", wanted)
        assert found is not None
        assert [name for (name,) in found] == [name for name in NAMES if name in wanted]
    assert rows.select(["image_id"], "split", {"all"}) is None


def test_a_table_that_is_too_large_is_not_searched_by_text(snapshot, monkeypatch):
    monkeypatch.setattr(rows_module, "_MOST_TEXT", 0)
    assert rows_of(snapshot).select(COLUMNS, "image_id", {"a"}) is None


def test_only_marked_rows_are_found(snapshot):
    only = np.array([False, True, True, True, False, False])
    found = rows_of(snapshot).select(["image_id"], "key", {key_of("b"), key_of(ODD)}, only)
    assert found is not None
    assert list(found) == [(ODD,), ("",)]


def test_an_empty_table_has_no_rows(tmp_path):
    snapshot = make_store(tmp_path, images_table([]), captions_table([]), {}, None)
    rows = rows_of(snapshot)
    for column in ("key", "image_id"):
        found = rows.select(COLUMNS, column, {key_of("b")})
        assert found is not None
        assert list(found) == []


def test_a_damaged_table_is_refused(snapshot):
    path = snapshot.layout.object(snapshot.manifest.require("images").sha256)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    unverified = Objects(snapshot.layout)
    with pytest.raises(DataError, match="damaged"):
        Rows(unverified, snapshot.manifest.require("images"), ("image_id", "uri"))
