"""The summary of a corpus."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from mmindex.pages.collection import collection
from mmindex.store.snapshot import Snapshot
from support.stores import captions_table, images_table, key_of, make_store


def store(root: Path, ids: list[str], **columns: pa.Array) -> Snapshot:
    table = images_table([(one, key_of(one), f"/r/{one}") for one in ids])
    for name, values in columns.items():
        if name in table.column_names:
            place = table.column_names.index(name)
            table = table.set_column(place, name, values)
        else:
            table = table.append_column(name, values)
    return make_store(root, table, captions_table([]), {}, None)


def test_a_plain_corpus_is_counted_by_folder_format_and_size(tmp_path: Path) -> None:
    ids = ["f/a/1.jpg", "f/a/2.jpg", "f/b/3.jpg", "4.jpg"]
    snapshot = store(
        tmp_path / "s",
        ids,
        width=pa.array([100, 100, 4000, 60_000], pa.int32()),
        height=pa.array([100, 100, 3000, 60_000], pa.int32()),
        format=pa.array(["PNG", "JPEG", "JPEG", "JPEG"]),
    )
    found = collection(snapshot)
    assert (found.images, found.size_bytes) == (4, 400)
    counts = {one.title: [(row.label, row.count) for row in one.rows] for one in found.counts}
    assert counts == {
        "Folders": [("f/a", 2), ("4.jpg", 1), ("f/b", 1)],
        "Formats": [("JPEG", 3), ("PNG", 1)],
        "Megapixels": [("up to 0.3", 2), ("12 – 30", 1), ("over 30", 1)],
    }
    assert found.counts[0].rows[0].share == 100


def test_dates_and_cameras_are_counted_where_they_are_known(tmp_path: Path) -> None:
    taken = [datetime(2000 + n // 2, 5, 1) for n in range(29)]
    snapshot = store(
        tmp_path / "s",
        [f"f/{n}" for n in range(30)],
        taken=pa.array([*taken, None], pa.timestamp("ms")),
        camera=pa.array([None, "", *(["Canon <b>"] * 28)]),
    )
    years, folders, cameras, *_ = collection(snapshot).counts
    assert [row.label for row in years.rows] == [str(year) for year in range(2014, 2004, -1)]
    assert (years.more, years.rest, years.unknown) == (5, 10, 1)
    assert [(row.label, row.count) for row in folders.rows] == [("f", 30)]
    assert (cameras.rows[0].label, cameras.unknown) == ("Canon <b>", 2)


def test_columns_of_a_source_with_these_names_are_not_counted(tmp_path: Path) -> None:
    snapshot = store(tmp_path / "s", ["f/1"], taken=pa.array(["in May"]), camera=pa.array([7]))
    titles = [one.title for one in collection(snapshot).counts]
    assert titles == ["Folders", "Formats", "Megapixels"]


def test_a_count_with_too_many_values_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmindex.pages.collection._MOST_KINDS", 5)
    found = collection(store(tmp_path / "s", [f"folder-{n}/1" for n in range(9)]))
    assert [one.title for one in found.counts] == ["Formats", "Megapixels"]


def test_an_empty_corpus_has_nothing_to_count(tmp_path: Path) -> None:
    assert collection(store(tmp_path / "s", [])).counts == ()
