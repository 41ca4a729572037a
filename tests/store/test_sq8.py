"""Vectors in 8 bits: half the bytes, read as float16, stable when rewritten, always checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmindex.core.errors import DataError
from mmindex.store.objects import Objects
from mmindex.store.vectors import BLOCK_BYTES, Vectors, pack_sq8, unpack_sq8, write_segment
from mmindex.store.versions import create_layout
from support.clustered import clustered

DIM = 64


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1.0, 100.0]))
def test_a_number_changes_by_less_than_a_step_and_only_once(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((5, 32)) * scale).astype(np.float16)
    rows[3] = 0
    once = unpack_sq8(pack_sq8(rows))
    step = np.abs(rows.astype(np.float32)).max(axis=1, keepdims=True) / 127
    # Half a step from rounding, and float16's own rounding of what comes back.
    assert (np.abs(once.astype(np.float32) - rows) <= 0.57 * step + 1e-7).all()
    again = pack_sq8(once)
    np.testing.assert_array_equal(again[:, :32], pack_sq8(rows)[:, :32])


def _store(folder: Path, rows: np.ndarray, refine: str) -> tuple[Objects, Vectors]:
    objects = Objects(create_layout(folder))
    half = len(rows) // 2
    refs = [
        *write_segment(objects, "image", 0, rows.shape[1], [rows[:7], rows[7:half]], refine),
        *write_segment(objects, "image", 1, rows.shape[1], [rows[half:]], refine),
    ]
    return objects, Vectors(objects, refs, "image", rows.shape[1])


def test_rows_and_blocks_are_read_back(tmp_path: Path) -> None:
    rows = clustered(40_000, DIM)
    _, vectors = _store(tmp_path, rows, "sq8")
    assert vectors.n == len(rows)
    expected = unpack_sq8(pack_sq8(rows))
    chosen = np.array([39_999, 0, 17, 25_000, 17])
    np.testing.assert_array_equal(vectors.take(chosen), expected[chosen])
    blocks = list(vectors.blocks(9_999))
    np.testing.assert_array_equal(np.concatenate([part for _, part in blocks]), expected)
    np.testing.assert_array_equal(np.concatenate([ids for ids, _ in blocks]), np.arange(40_000))
    assert {part.dtype for _, part in blocks} == {np.dtype(np.float16)}


def test_it_needs_about_half_the_bytes(tmp_path: Path) -> None:
    rows = clustered(1_000, 512)
    objects = Objects(create_layout(tmp_path))
    plain, _ = write_segment(objects, "image", 0, 512, [rows])
    packed, _ = write_segment(objects, "image", 0, 512, [rows], "sq8")
    assert packed.bytes / plain.bytes == (512 + 4) / 1024


def test_few_dimensions_stay_float16(tmp_path: Path) -> None:
    rows = clustered(100, 8)
    _, vectors = _store(tmp_path, rows, "sq8")
    np.testing.assert_array_equal(vectors.take(np.arange(100)), rows)


def test_a_damaged_block_is_never_read(tmp_path: Path) -> None:
    rows = clustered(40_000, DIM)
    objects = Objects(create_layout(tmp_path))
    refs = write_segment(objects, "image", 0, DIM, [rows], "sq8")
    path = objects.layout.object(refs[0].sha256)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(BLOCK_BYTES + 5)
        byte = file.read(1)
        file.seek(BLOCK_BYTES + 5)
        file.write(bytes([byte[0] ^ 1]))
    vectors = Vectors(objects, refs, "image", DIM)
    vectors.take(np.array([0]))
    with pytest.raises(DataError):
        vectors.take(np.array([BLOCK_BYTES // (DIM + 4) + 1]))
    with pytest.raises(DataError):
        list(vectors.blocks(1_000))
