"""Keys as sorted arrays: equal to what sets and dictionaries of the whole keys say."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmindex.context import unique_keys
from mmindex.errors import DataError
from mmindex.keys import binary_keys, live_keys, places_of
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects
from support.fakestore import fast_folder
from support.index_stores import open_objects

# Few digits, so that many are equal, differ in their last byte alone or end in zero bytes, which
# NumPy's byte strings leave out when they compare.
KEYS = st.lists(
    st.builds(lambda head, tail: f"{head:02x}{'00' * 30}{tail:02x}", *[st.integers(0, 3)] * 2)
)


@settings(deadline=None)
@given(KEYS, KEYS)
def test_live_keys_are_the_distinct_ones_and_are_found(texts, asked):
    with fast_folder() as folder:
        objects = open_objects(folder / "store")
        table = key_table(objects, texts)
        live = live_keys(objects, table)
        in_order = unique_keys(objects, table).to_pylist()
    assert in_order == list(dict.fromkeys(texts))
    assert live.of_rows == len(texts)
    distinct = sorted(set(texts))
    assert live.rows.tolist() == [texts.index(key) for key in distinct]
    expected = [distinct.index(key) if key in distinct else -1 for key in asked]
    assert places_of(binary_keys(asked), live).tolist() == expected


def key_table(objects: Objects, texts: list[str]) -> ObjectRef:
    """A table in batches of three rows."""
    schema = pa.schema([("key", pa.string())])
    batches = [
        pa.record_batch([pa.array(texts[start : start + 3], pa.string())], schema=schema)
        for start in range(0, len(texts), 3)
    ]
    return objects.write_table("images", schema, batches)


@pytest.mark.parametrize("bad", ["", "0" * 63, "0" * 66, "g" * 64, None])
def test_what_is_no_sha256_is_refused(bad):
    with pytest.raises(DataError, match="not a sha256"):
        binary_keys(["a" * 64, bad])
