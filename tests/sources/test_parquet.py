"""Parquet files with images, as on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmindex.core.errors import DataError
from mmindex.core.records import ItemError, Reason
from mmindex.media.parquet_cells import read_cell, split_cell
from support.corpora import source_events, write_files
from support.images import png

MAX = 1 << 24
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, columns: dict[str, pa.Array], group_rows: int = 2) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=group_rows, write_page_checksum=True)
    return path


def images(*values: bytes | None) -> pa.Array:
    return pa.array([{"bytes": value, "path": "x.jpg"} for value in values], IMAGE)


def events(path: Path, split: str | None = None) -> list[Any]:
    return source_events(f"parquet:{path}" + (f"#{split}" if split else ""))


def test_a_struct_with_bytes_and_a_text(tmp_path):
    path = write(
        tmp_path / "train-00000-of-00001.parquet",
        {
            "image": images(*(png(n) for n in range(5))),
            "text": pa.array([f"picture {n}" for n in range(5)]),
            "width": pa.array(range(5)),
        },
    )
    found = events(path)
    assert [item.image_id for item in found] == [
        f"parquet/{tmp_path.name}/{path.stem}/{n}" for n in range(5)
    ]
    assert [item.captions for item in found] == [(f"picture {n}",) for n in range(5)]
    assert [item.read() for item in found] == [png(n) for n in range(5)]
    assert [item.metadata for item in found] == [{"width": n} for n in range(5)]
    assert found[3].uri == f"{path}!image/3"


def test_binary_columns_lists_of_captions_ids_and_splits(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        {
            "photo": pa.array([png(1), png(2)], pa.large_binary()),
            "captions": pa.array([["one", "uno"], []]),
            "id": pa.array(["x", "y"]),
            "split": pa.array(["train", "test"]),
        },
    )
    first, second = events(path)
    assert (first.image_id, first.captions, first.split) == (
        f"parquet/{tmp_path.name}/a/x",
        ("one", "uno"),
        "train",
    )
    assert (second.captions, second.split, second.read()) == ((), "test", png(2))
    assert [item.image_id for item in events(path, "test")] == [f"parquet/{tmp_path.name}/a/y"]


def test_a_file_of_nothing_but_images(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": images(png(1), png(2), png(3))})
    assert [item.read() for item in events(path)] == [png(1), png(2), png(3)]


def test_no_column_of_images_is_an_error_that_lists_the_columns(tmp_path):
    path = write(tmp_path / "a.parquet", {"text": pa.array(["x"])})
    with pytest.raises(DataError, match="text: string"):
        events(path)


def test_null_images_and_missing_cells_are_failed_items(tmp_path):
    cells = pa.array([None, png(1)], pa.binary())
    path = write(tmp_path / "a.parquet", {"image": cells})
    missing, good = events(path)
    with pytest.raises(ItemError) as caught:
        missing.read()
    assert caught.value.reason is Reason.MISSING
    assert good.read() == png(1)
    for column, row in (("image", 2), ("photo", 0)):
        with pytest.raises(ItemError):
            read_cell(str(path), column, row, MAX)
    with pytest.raises(ItemError, match="limit"):
        read_cell(str(path), "image", 1, 3)
    for text in ("image", "image/x", "/1", "image/-1"):
        with pytest.raises(ItemError):
            split_cell(text)


def test_damaged_pages_are_found(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": images(png(1), png(2))})
    data = bytearray(path.read_bytes())
    data[data.index(png(2)[:20]) + 30] ^= 4
    path.write_bytes(data)
    first, _ = events(path)
    with pytest.raises(ItemError) as caught:
        first.read()
    assert caught.value.reason is Reason.CORRUPT


def test_a_file_that_is_replaced_is_read_again(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": images(png(1))})
    assert read_cell(str(path), "image", 0, MAX) == png(1)
    other = write(tmp_path / "b", {"image": images(png(2), png(3))})
    other.replace(path)
    assert read_cell(str(path), "image", 0, MAX) == png(2)


def test_a_missing_parquet_file_is_an_error(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match=r"a\.parquet"):
        events(tmp_path / "a.parquet")


def ids(found: list[Any]) -> list[str]:
    return [item.image_id.rpartition("/")[2] for item in found]


@pytest.mark.parametrize("values", [[None, None, None], [float("nan"), None, 2.0], ["", " ", "x"]])
def test_a_row_without_an_id_is_named_by_its_number(tmp_path, values):
    path = write(
        tmp_path / "a.parquet",
        {"image": images(png(1), png(2), png(3)), "id": pa.array(values)},
    )
    assert ids(events(path))[:2] == ["row-0", "row-1"]
    assert len(set(ids(events(path)))) == 3


@pytest.mark.parametrize(
    "columns",
    [
        {"caption_1": pa.array(["b"]), "caption_0": pa.array(["a"])},
        {"sentences_raw": pa.array([["a", "b"]])},
        {"TEXT": pa.array([["a", None, "b"]])},
        {"sentences": pa.array([[{"raw": "a", "sentid": 1}, {"raw": "b", "sentid": 2}]])},
        {"sentences": pa.array([{"raw": ["a", "b"], "sentid": [1, 2]}])},
    ],
)
def test_captions_in_every_form_of_the_hub(tmp_path, columns):
    path = write(tmp_path / "a.parquet", {"image": images(png(1)), **columns})
    [item] = events(path)
    assert item.captions == ("a", "b")
    assert not item.metadata


@pytest.mark.parametrize(
    "column",
    [pa.array([7]), pa.array([{"tokens": ["a"]}]), pa.array([[1.5]]), pa.array([True])],
)
def test_an_invalid_caption_is_refused_by_name(tmp_path, column):
    path = write(tmp_path / "a.parquet", {"image": images(png(1)), "caption": column})
    with pytest.raises(DataError, match=r"row 0, column 'caption': not a caption"):
        events(path)


def test_images_can_be_files_next_to_the_table(tmp_path):
    write_files(tmp_path, {"img/1.jpg": png(1), "2.png": png(2)})
    files = pa.array(["img/1.jpg", "2.png", "gone.jpg", "../x.jpg"])
    path = write(tmp_path / "a.parquet", {"file_name": files, "text": pa.array(list("abcd"))})
    found = events(path)
    first, second, missing, _, unsafe, _ = found
    assert (first.read(), first.captions, first.uri) == (png(1), ("a",), f"{tmp_path}/img/1.jpg")
    assert second.read() == png(2)
    assert (missing.reason, unsafe.reason) == (Reason.MISSING, Reason.UNSAFE_PATH)


def test_null_bytes_with_a_path_are_a_file_next_to_the_table(tmp_path):
    write_files(tmp_path, {"x.jpg": png(7)})
    path = write(tmp_path / "a.parquet", {"image": images(png(1), None, png(3))})
    assert [item.read() for item in events(path)] == [png(1), png(7), png(3)]


def test_urls_are_not_read_as_files(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": pa.array(["https://example.org/1.jpg"])})
    with pytest.raises(DataError) as caught:
        events(path)
    assert "urls:FILE" in caught.value.hint


def test_lists_stay_lists(tmp_path):
    tags = pa.array([["art"], []])
    path = write(tmp_path / "a.parquet", {"image": images(png(1), png(2)), "tags": tags})
    assert [item.metadata for item in events(path)] == [{"tags": ["art"]}, {"tags": []}]
