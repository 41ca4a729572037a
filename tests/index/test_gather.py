"""Vectors are read from shards in the order of ids, complete and checked."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmindex.core.errors import DataError, InternalError
from mmindex.encode.shards import write_shard
from mmindex.index import gather
from mmindex.index.gather import as_keys, id_batches, locate, vector_blocks
from mmindex.store import buckets
from support.clustered import clustered
from support.index_stores import key_of, open_objects, write_shards
from support.models import fake_info

INFO = fake_info()


def gathered(objects, keys, shards):
    return np.concatenate(
        list(vector_blocks(objects, locate(objects, as_keys(keys), shards), shards))
    )


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(range(50)),
    live=st.integers(1, 50),
    rows=st.integers(1, 60),
    in_range=st.integers(1, 60),
)
def test_any_order_of_keys_over_any_shards(tmp_path_factory, order, live, rows, in_range):
    """Chunks and ranges are much smaller than the corpus, so each shard is read more than once."""
    vectors = clustered(50, 16)
    objects = open_objects(tmp_path_factory.mktemp("store"))
    shards = write_shards(objects, vectors, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "_CHUNK_BYTES", 16 * 2 * 7)
        patch.setattr(gather, "_READ_ROWS", 4)
        patch.setattr(gather, "_BLOCK", 4)
        patch.setattr(buckets, "RANGE_RECORDS", in_range)
        found = gathered(objects, [key_of(number) for number in order[:live]], shards)
    np.testing.assert_array_equal(found, vectors[order[:live]])


def test_a_key_that_is_in_two_shards_is_taken_from_the_first(tmp_path):
    objects = open_objects(tmp_path)
    shards = (
        *write_shards(objects, clustered(5, 8, 1)),
        *write_shards(objects, clustered(5, 8, 2)),
    )
    np.testing.assert_array_equal(gathered(objects, [key_of(3)], shards), clustered(5, 8, 1)[3:4])


def test_keys_can_have_any_arrow_or_python_form():
    keys = [key_of(number) for number in range(3)]
    for form in (keys, pa.array(keys), pa.chunked_array([keys[:1], keys[1:]]), iter(keys)):
        column = as_keys(form)
        assert column.to_pylist() == keys
        assert pa.Table.from_batches(id_batches(column)).column("key").to_pylist() == keys


@pytest.mark.parametrize(
    ("numbers", "says"), [([0, 1, 99], "1 keys have no vector"), ([0, 1, 0], "occurs twice")]
)
@pytest.mark.parametrize("in_range", [1, 100])
def test_keys_without_a_vector_are_a_bug(tmp_path, monkeypatch, numbers, says, in_range):
    monkeypatch.setattr(buckets, "RANGE_RECORDS", in_range)
    objects = open_objects(tmp_path)
    shards = write_shards(objects, clustered(10, 8))
    with pytest.raises(InternalError, match=says):
        locate(objects, as_keys([key_of(number) for number in numbers]), shards)


def test_a_key_that_a_shard_holds_twice_has_its_first_vector(tmp_path):
    objects = open_objects(tmp_path)
    keys = [key_of(number) for number in (0, 1, 0, 1)]
    rows = (keys, clustered(4, INFO.dim))
    shard = write_shard(objects, "embeddings/image/00000", INFO, rows, {})
    located = locate(objects, as_keys(keys[:2]), [shard])
    assert located.row.tolist() == [0, 1]


@pytest.mark.parametrize("bad", [None, "not a key"])
def test_a_shard_with_a_damaged_key_is_named(tmp_path, bad):
    objects = open_objects(tmp_path)
    rows = ([key_of(0), bad], clustered(2, INFO.dim))
    shard = write_shard(objects, "embeddings/image/00000", INFO, rows, {})
    with pytest.raises(DataError, match="embeddings/image/00000: a key is not a sha256"):
        locate(objects, as_keys([key_of(0)]), [shard])


def test_no_shards_are_a_bug(tmp_path):
    with pytest.raises(InternalError, match="no embedding shards"):
        locate(open_objects(tmp_path), as_keys([]), ())


def test_shards_of_two_models_are_not_mixed(tmp_path):
    objects = open_objects(tmp_path)
    shards = (*write_shards(objects, clustered(5, 8)), *write_shards(objects, clustered(5, 16)))
    with pytest.raises(DataError, match="differ in dimensions"):
        locate(objects, as_keys([key_of(0)]), shards)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 3.0])
def test_a_vector_that_is_not_finite_and_of_unit_length_never_reaches_the_index(tmp_path, bad):
    vectors = clustered(30, 8)
    vectors[17] = bad
    objects = open_objects(tmp_path)
    shards = write_shards(objects, vectors, 10)
    with pytest.raises(DataError, match=key_of(17)):
        gathered(objects, [key_of(number) for number in range(30)], shards)


def test_a_damaged_shard_is_refused(tmp_path):
    objects = open_objects(tmp_path)
    shards = write_shards(objects, clustered(30, 8))
    path = objects.layout.object(shards[0].sha256)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        gathered(objects, [key_of(0)], shards)
