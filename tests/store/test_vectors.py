"""Vectors are read by row in limited memory, and never from a damaged block."""

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmindex.core.errors import DataError, InternalError
from mmindex.store import vectors as vectors_module
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.store.vectors import (
    BLOCK_BYTES,
    REMOVED_SCHEMA,
    Vectors,
    write_removed,
    write_segment,
)
from mmindex.store.versions import create_layout
from support.manifests import manifest_with_vectors
from support.stores import reopened, with_manifest


def store_segments(tmp_path, segments):
    objects = Objects(create_layout(tmp_path / "store"))
    refs, dim = [], segments[0].shape[1]
    for number, segment in enumerate(segments):
        refs += write_segment(objects, "image", number, dim, [segment[:3], segment[3:]])
    rows = sum(len(segment) for segment in segments)
    refs.append(ObjectRef(name="ids/image", sha256="0" * 64, bytes=0, rows=rows))  # never read
    return Snapshot(objects, manifest_with_vectors("image", rows, dim, refs))


def rows_of(count, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float16)


def test_rows_are_returned_in_the_requested_order_across_segments(tmp_path):
    parts = [rows_of(5000, 100, 1), rows_of(7, 100, 2), rows_of(3000, 100, 3)]
    snapshot = store_segments(tmp_path, parts)
    every = np.concatenate(parts)
    stored = snapshot.vectors("image")
    assert (stored.n, stored.dim) == (8007, 100)
    ids = np.array([8006, 0, 5000, 4999, 5006, 5007, 0], dtype=np.int64)
    np.testing.assert_array_equal(stored.take(ids), every[ids])
    streamed = [(int(ids[0]), block.copy()) for ids, block in stored.blocks(999)]
    assert [first for first, _ in streamed][:2] == [0, 999]
    np.testing.assert_array_equal(np.concatenate([block for _, block in streamed]), every)


def test_negative_and_unknown_rows_are_refused(tmp_path):
    snapshot = store_segments(tmp_path, [rows_of(10, 8)])
    stored = snapshot.vectors("image")
    for bad in (-1, 10):
        with pytest.raises(IndexError):
            stored.take(np.array([bad], dtype=np.int64))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_found_when_its_block_is_read(tmp_path_factory, data):
    """Wherever the bit is, rows in its block are refused, and rows of other blocks still answer."""
    every = rows_of(9000, 128)  # 2.2 blocks
    snapshot = store_segments(tmp_path_factory.mktemp("flip"), [every])
    path = snapshot.layout.object(snapshot.manifest.named("vectors/image/")[0].sha256)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    stored = snapshot.vectors("image")
    with pytest.raises(DataError, match="damaged"):
        stored.take(np.array([position // 256], dtype=np.int64))
    other_row = 0 if position >= BLOCK_BYTES else len(every) - 1
    np.testing.assert_array_equal(stored.take(np.array([other_row]))[0], every[other_row])


def test_damaged_digests_and_short_files_are_refused_on_opening(tmp_path):
    snapshot = store_segments(tmp_path, [rows_of(9000, 128)])
    path = snapshot.layout.object(snapshot.manifest.named("vectors/image/")[0].sha256)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="bytes"):
        snapshot.vectors("image")
    path.write_bytes(whole)
    digests = snapshot.layout.object(snapshot.manifest.named("digests/image/")[0].sha256)
    content = bytearray(digests.read_bytes())
    content[5] ^= 1
    digests.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        reopened(snapshot).vectors("image")


def test_only_float16_of_the_right_width_is_written(tmp_path):
    objects = Objects(create_layout(tmp_path / "store"))
    with pytest.raises(InternalError):
        write_segment(objects, "image", 0, 8, [np.zeros((2, 8), dtype=np.float32)])
    with pytest.raises(InternalError):
        write_segment(objects, "image", 0, 8, [np.zeros((2, 9), dtype=np.float16)])


def test_each_block_is_hashed_once(tmp_path, monkeypatch):
    snapshot = store_segments(tmp_path, [rows_of(9000, 128)])
    stored = snapshot.vectors("image")
    hashed = []
    real = vectors_module.hashlib.sha256
    monkeypatch.setattr(
        vectors_module.hashlib, "sha256", lambda data: (hashed.append(len(data)), real(data))[1]
    )
    stored.take(np.array([0, 1, 2]))
    stored.take(np.array([1, 5]))
    assert hashed == [BLOCK_BYTES]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_removed_rows_are_never_streamed_and_ids_stay(tmp_path_factory, data):
    """With any segments and block sizes, and with no, some or all rows removed."""
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    removed = data.draw(st.sets(st.integers(0, sum(sizes) - 1)))
    parts = [rows_of(size, 8, seed) for seed, size in enumerate(sizes)]
    objects = store_segments(tmp_path_factory.mktemp("removed"), parts).objects
    gone = np.array(sorted(removed), dtype=np.int64)
    refs = write_removed(objects, "image", gone)
    assert bool(refs) == bool(removed)
    for number, part in enumerate(parts):
        refs += write_segment(objects, "image", number, 8, [part])
    stored = Vectors(objects, refs, "image", 8)
    live = [row for row in range(sum(sizes)) if row not in removed]
    assert (stored.n, stored.live) == (sum(sizes), len(live))
    assert stored.live_ids().tolist() == live
    blocks = list(stored.blocks(data.draw(st.integers(1, 50))))
    assert [int(row) for ids, _ in blocks for row in ids] == live
    every = np.concatenate(parts)
    for ids, block in blocks:
        np.testing.assert_array_equal(block, every[ids])


@pytest.mark.parametrize("rows", [[3, 2], [1, 1], [-1, 2], [9, 10], []])
def test_an_invalid_list_of_removed_rows_is_refused(tmp_path, rows):
    objects = store_segments(tmp_path, [rows_of(10, 8)]).objects
    refs = write_segment(objects, "image", 0, 8, [rows_of(10, 8)])
    table = pa.table([pa.array(rows, pa.int64())], schema=REMOVED_SCHEMA)
    wrong = objects.write_table("removed/image", REMOVED_SCHEMA, [table])
    with pytest.raises(DataError, match="removed/image"):
        Vectors(objects, [*refs, wrong], "image", 8)


def test_rows_that_do_not_match_the_manifest_are_refused(tmp_path):
    """A manifest whose live vectors or rows differ from those on disk."""
    snapshot = store_segments(tmp_path, [rows_of(10, 8)])
    lost = write_removed(snapshot.objects, "image", np.array([4]))
    wrong = with_manifest(snapshot, objects=(*snapshot.manifest.objects, *lost))
    with pytest.raises(DataError, match="9 of them live"):
        wrong.vectors("image")
    info = msgspec.structs.replace(snapshot.manifest.indexes["image"], n=9)
    right = with_manifest(wrong, indexes={"image": info})
    assert right.vectors("image").live == 9
