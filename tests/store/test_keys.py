"""Keys as sorted arrays, compared with sets and dictionaries of the keys."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmindex.core.errors import DataError
from mmindex.store import buckets, keys
from mmindex.store.keys import (
    binary_keys,
    column_keys,
    count_distinct,
    live_keys,
    places_of,
    unique_keys,
)
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects
from support.fakestore import fast_folder
from support.index_stores import open_objects

# Few different bytes, so that many keys are equal, differ only in their last byte or end in zeros,
# which NumPy's byte strings leave out when they compare.
BYTES = st.sampled_from([0x00, 0x01, 0x7F, 0x80, 0xFF])
KEYS = st.lists(
    st.builds(
        lambda head, middle, tail: f"{head:02x}{middle:02x}{'00' * 29}{tail:02x}", *[BYTES] * 3
    )
)


@pytest.fixture(scope="module", autouse=True)
def two_rows_at_once():
    """Everything that is read in parts is read in many parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_READ_ROWS", 2)
        yield


@settings(deadline=None)
@given(KEYS, KEYS, st.integers(1, 9))
def test_live_keys_are_the_distinct_ones_and_are_found(texts, asked, in_range):
    """Also by range, with few keys in each."""
    with fast_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "RANGE_RECORDS", in_range)
        objects = open_objects(folder / "store")
        table = key_table(objects, texts)
        live = live_keys(objects, table)
        column = unique_keys(objects, table)
        in_order = column.to_pylist()
        assert unique_keys(objects, table, live).to_pylist() == in_order
        assert count_distinct(objects, table) == len(in_order)
        assert not list(objects.layout.staging_dir.iterdir())
        patch.setattr(buckets, "RANGE_RECORDS", 1 << 20)
        whole = unique_keys(objects, table)
        assert [len(chunk) for chunk in column.chunks] == [len(chunk) for chunk in whole.chunks]
    assert in_order == list(dict.fromkeys(texts))
    assert live.of_rows == len(texts)
    distinct = sorted(set(texts))
    assert live.rows.tolist() == [texts.index(key) for key in distinct]
    expected = [distinct.index(key) if key in distinct else -1 for key in asked]
    assert places_of(binary_keys(asked), live).tolist() == expected


def key_table(objects: Objects, texts: list[str]) -> ObjectRef:
    table = pa.table({"key": pa.array(texts, pa.string())})
    return objects.write_table("images", table.schema, [table])


def test_a_column_in_parts_is_read_whole():
    texts = [f"{number:064x}" for number in range(7)]
    column = pa.chunked_array([texts[:1], [], texts[1:6], texts[6:]], pa.string())
    assert column_keys(column).tobytes() == bytes.fromhex("".join(texts))


@pytest.mark.parametrize("bad", ["", "0" * 63, "0" * 66, "g" * 64, None])
def test_a_key_that_is_not_a_sha256_is_refused(bad):
    with pytest.raises(DataError, match="not a sha256"):
        binary_keys(["a" * 64, bad])


def test_lengths_that_cancel_each_other_out_are_refused():
    with pytest.raises(DataError, match="not a sha256"):
        binary_keys(["a" * 62, "b" * 66])
