"""Vectors of other programs: their layouts, and damaged or misleading files."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.records import CaptionItem, Note, NoteKind, Reason, Rejected, VectorItem
from mmindex.sources.vector_files import open_npy, unit_vectors
from mmindex.sources.vector_sets import open_vectors
from support.corpora import source_events
from support.vectors import (
    DIM,
    list_column,
    random_units,
    write_clip_retrieval,
    write_npy,
    write_table,
)


def images(path: Path, split: str = "") -> list[VectorItem]:
    found = source_events(f"embeddings:{path}{split}")
    return [event for event in found if isinstance(event, VectorItem)]


def keys(vectors: np.ndarray[Any, Any]) -> list[str]:
    return unit_vectors(vectors).keys()


def test_clip_retrievals_folder_has_images_captions_and_metadata(tmp_path: Path) -> None:
    folder = write_clip_retrieval(tmp_path / "laion", rows=3, files=2)
    found = source_events(f"embeddings:{folder}")
    items = [event for event in found if isinstance(event, VectorItem)]
    captions = [event for event in found if isinstance(event, CaptionItem)]
    assert [item.image_id for item in items] == [
        f"embeddings/laion/{number:09d}" for number in range(6)
    ]
    assert items[4].uri == "https://example.org/4.jpg"
    assert items[4].key == keys(random_units(3, seed=1).astype(np.float16))[1]
    assert (items[4].width, items[4].height, dict(items[4].metadata)) == (
        101,
        0,
        {"NSFW": "UNLIKELY"},
    )
    assert [(one.image_id, one.text) for one in captions] == [
        (item.image_id, f"caption {number}") for number, item in enumerate(items)
    ]
    assert captions[5].key == keys(random_units(3, seed=1001).astype(np.float16))[2]


def test_laions_folders_have_other_names_and_padded_numbers(tmp_path: Path) -> None:
    folder = write_clip_retrieval(tmp_path / "plain", rows=2, files=2)
    laion = tmp_path / "laion"
    for number in range(2):
        for kind, place, suffix in (
            ("img_emb", "images", "npy"),
            ("text_emb", "texts", "npy"),
            ("metadata", "laion2B-en-metadata", "parquet"),
        ):
            (laion / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(
                folder / kind / f"{kind}_{number}.{suffix}",
                laion / place / f"{kind}_{number:04d}.{suffix}",
            )
    assert [item.key for item in images(laion)] == [item.key for item in images(folder)]


def test_without_vectors_of_texts_captions_stay_metadata(tmp_path: Path) -> None:
    folder = write_clip_retrieval(tmp_path / "a", rows=2)
    shutil.rmtree(folder / "text_emb")
    found = source_events(f"embeddings:{folder}")
    assert [event.metadata["caption"] for event in found] == ["caption 0", "caption 1"]


def test_a_npy_file_with_a_table_beside_it_and_one_without(tmp_path: Path) -> None:
    vectors = random_units(3)
    path = write_npy(tmp_path / "one" / "v.npy", vectors)
    [first, *_] = images(path)
    assert (first.image_id, first.uri) == ("embeddings/v/v/0", f"{path}#0")
    write_table(tmp_path / "one" / "v.parquet", {"id": ["x", None, "z"], "split": ["a", "a", "b"]})
    for place in (path, path.parent):
        assert [item.image_id.partition("/")[2].partition("/")[2] for item in images(place)] == [
            "x",
            "v/1",
            "z",
        ]
    assert [item.split for item in images(path)] == ["a", "a", "b"]
    assert [item.key for item in images(path, "#b")] == keys(vectors)[2:]


def test_one_npy_file_and_one_table_belong_together_whatever_their_names(tmp_path: Path) -> None:
    write_npy(tmp_path / "d" / "embeddings.npy", random_units(2))
    write_table(tmp_path / "d" / "meta.parquet", {"id": [7, 8]})
    assert [item.image_id for item in images(tmp_path / "d")] == [
        "embeddings/d/7",
        "embeddings/d/8",
    ]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.float16(), None])
def test_a_table_with_a_column_of_lists(tmp_path: Path, kind: pa.DataType | None) -> None:
    vectors = random_units(5).astype(np.float16)
    column = list_column(vectors, kind)
    path = write_table(tmp_path / "t.parquet", {"embedding": column, "url": list("abcde")})
    found = images(path)
    assert [item.key for item in found] == keys(vectors)
    assert [item.uri for item in found] == list("abcde")


def test_the_key_of_a_row_is_that_of_its_vector_in_every_type(tmp_path: Path) -> None:
    vectors = random_units(4).astype(np.float16)
    expected = keys(vectors)
    kinds = [np.dtype(code) for code in ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8")]
    for number, kind in enumerate(kinds):
        for order in (np.asarray, np.asfortranarray):
            path = write_npy(
                tmp_path / f"{number}{order.__name__}.npy", order(vectors.astype(kind))
            )
            assert [item.key for item in images(path)] == expected, (kind, order)


def test_blocks_of_every_order_and_size_give_the_same_rows(tmp_path: Path) -> None:
    vectors = random_units(23)
    plain = open_npy(write_npy(tmp_path / "c.npy", vectors))
    turned = open_npy(write_npy(tmp_path / "f.npy", np.asfortranarray(vectors)))
    for most in (1, 7, 23, 100):
        for file in (plain, turned):
            blocks = list(file.blocks(most))
            assert {len(block) for block in blocks[:-1]} <= {most}
            np.testing.assert_array_equal(np.concatenate(blocks), vectors)


def test_vectors_of_any_length_are_scaled_and_counted(tmp_path: Path) -> None:
    vectors = random_units(5).astype(np.float64)
    scaled = vectors * np.array([1.0, 1e-200, 1e200, 37.5, 1.001])[:, None]
    found = source_events(f"embeddings:{write_npy(tmp_path / 'v.npy', scaled)}")
    items = [event for event in found if isinstance(event, VectorItem)]
    assert [item.key for item in items[:4]] == keys(vectors)[:4]
    assert found.count(Note(NoteKind.VECTORS_SCALED)) == 3


def test_a_vector_that_cannot_be_used_rejects_its_row_alone(tmp_path: Path) -> None:
    folder = write_clip_retrieval(tmp_path / "a", rows=6)
    vectors = random_units(6).astype(np.float16)
    vectors[0, 3], vectors[1, 0], vectors[2] = np.nan, np.inf, 0
    write_npy(folder / "img_emb" / "img_emb_0.npy", vectors)
    texts = random_units(6, seed=9).astype(np.float16)
    texts[5] = np.nan
    write_npy(folder / "text_emb" / "text_emb_0.npy", texts)
    found = source_events(f"embeddings:{folder}")
    bad = [event for event in found if isinstance(event, Rejected)]
    assert [one.image_id[-1] for one in bad] == ["0", "1", "2"]
    assert {one.reason for one in bad} == {Reason.BAD_VECTOR}
    assert [e.image_id[-1] for e in found if isinstance(e, VectorItem)] == ["3", "4", "5"]
    assert [e.image_id[-1] for e in found if isinstance(e, CaptionItem)] == ["3", "4"]
    assert found.count(Note(NoteKind.CAPTIONS_OF_REJECTED_IMAGES)) == 3
    assert found.count(Note(NoteKind.CAPTIONS_WITHOUT_VECTOR)) == 1


def test_lists_that_are_null_short_or_have_nulls_reject_their_rows(tmp_path: Path) -> None:
    good = random_units(1, 4)[0].tolist()
    rows = [good, None, [1.0], [], [None, 1.0, 0.0, 0.0], good]
    column = pa.array(rows, pa.list_(pa.float32()))
    path = write_table(tmp_path / "t.parquet", {"vector": column})
    found = source_events(f"embeddings:{path}")
    assert [type(event) for event in found] == [VectorItem, *[Rejected] * 4, VectorItem]


def header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


class Bomb:
    """Fails the test if it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (pytest.fail, ("unpickled",))


UNITS = random_units(4)
BROKEN = {
    "empty": b"",
    "text": b"<!doctype html>",
    "zip": b"PK\x03\x04" + bytes(100),
    "half a header": npy(UNITS)[:40],
    "no header": b"\x93NUMPY\x01\x00",
    "not a dictionary": header(b"[1, 2]\n"),
    "nested": header(b"(" * 9000 + b"\n"),
    "not python": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 1"),
    "unknown type": header(b"{'descr': '<zz', 'fortran_order': False, 'shape': (4, 16)}\n"),
    "huge": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 16)}\n" % 10**30),
    "negative": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 16)}\n"),
    "cut": npy(UNITS)[:-1],
    "longer": npy(UNITS) + b"\0",
    "objects": npy(np.array([[Bomb()] * 2] * 2, dtype=object)),
    "structured": npy(np.zeros(4, dtype=[("a", "<f4")])),
    "integers": npy(np.ones((4, 16), np.int8)),
    "complex": npy(np.ones((4, 16), np.complex64)),
    "long double": npy(np.ones((4, 16), np.longdouble)),
    "one dimension": npy(np.ones(16, np.float32)),
    "three dimensions": npy(np.ones((4, 4, 4), np.float32)),
    "no dimensions": npy(np.ones((4, 0), np.float32)),
    "scalar": npy(np.float32(1)),
    "later version": b"\x93NUMPY\x03\x00" + npy(UNITS)[8:],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_npy_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.npy"
    path.write_bytes(BROKEN[name])
    with pytest.raises(DataError, match=r"bad\.npy"):
        open_vectors(path)


def test_every_flipped_bit_of_a_header_is_an_error_or_another_table(tmp_path: Path) -> None:
    data = npy(UNITS)
    path = tmp_path / "v.npy"
    refused = 0
    for bit in range(8 * 128):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            for block in open_npy(path).blocks():
                unit_vectors(block)
        except DataError:
            refused += 1
    assert refused > 400


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "v.npy", UNITS)
    file = open_npy(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="shorter"):
        list(file.blocks())


def test_files_whose_rows_do_not_match_are_named_with_their_counts(tmp_path: Path) -> None:
    folder = write_clip_retrieval(tmp_path / "a", rows=4)
    write_npy(folder / "text_emb" / "text_emb_0.npy", random_units(3))
    with pytest.raises(DataError, match=r"img_emb_0\.npy has 4, text_emb_0\.npy has 3"):
        open_vectors(folder)
    shutil.rmtree(folder / "text_emb")
    write_table(folder / "metadata" / "metadata_0.parquet", {"caption": ["x"]})
    with pytest.raises(DataError, match=r"img_emb_0\.npy has 4, metadata_0\.parquet has 1"):
        open_vectors(folder)


@pytest.mark.parametrize(
    "missing", ["img_emb/img_emb_1.npy", "text_emb/text_emb_0.npy", "metadata/metadata_1.parquet"]
)
def test_a_file_that_others_belong_to_must_be_there(tmp_path: Path, missing: str) -> None:
    folder = write_clip_retrieval(tmp_path / "a", rows=2, files=2)
    (folder / missing).unlink()
    with pytest.raises(DataError, match="with the same number"):
        open_vectors(folder)


def test_other_dimensions_two_columns_and_two_files_with_one_number(tmp_path: Path) -> None:
    folder = write_clip_retrieval(tmp_path / "a", rows=2, files=2)
    write_npy(folder / "img_emb" / "img_emb_1.npy", random_units(2, 8))
    with pytest.raises(DataError, match=r"8 dimensions, but those of img_emb_0\.npy have 16"):
        open_vectors(folder)
    two = {"a": list_column(UNITS), "b": list_column(UNITS)}
    with pytest.raises(DataError, match="several columns"):
        open_vectors(write_table(tmp_path / "two.parquet", two))
    (folder / "more").mkdir()
    shutil.copy(folder / "img_emb" / "img_emb_0.npy", folder / "more" / "img_emb_00.npy")
    with pytest.raises(DataError, match="same number"):
        open_vectors(folder)


def test_no_vectors_is_an_error_that_names_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no such"):
        open_vectors(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoInputError) as caught:
        open_vectors(tmp_path / "empty")
    assert "img_emb_0.npy" in caught.value.hint
    with pytest.raises(DataError, match="no column"):
        open_vectors(write_table(tmp_path / "t.parquet", {"a": [1]}))


def test_a_damaged_table_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", {"vector": list_column(UNITS)})
    data = path.read_bytes()
    for cut in (0, 3, 100, len(data) - 3):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match=r"t\.parquet"):
            images(path)


def test_a_table_without_rows_has_no_images(tmp_path: Path) -> None:
    assert images(write_npy(tmp_path / "v.npy", np.empty((0, DIM), np.float32))) == []
    column = pa.array([], pa.list_(pa.float32()))
    assert images(write_table(tmp_path / "t.parquet", {"vector": column})) == []
    nulls = pa.array([None, None], pa.list_(pa.float32()))
    assert images(write_table(tmp_path / "n.parquet", {"vector": nulls})) == []
