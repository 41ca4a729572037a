"""Index.vectors and Index.iter_vectors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmindex
from support.models import fake_info
from support.stores import Side, captions_table, images_table, key_of, make_store


def synthetic(root: Path, rows: int, dim: int, segment_rows: int = 1 << 30) -> np.ndarray:
    """Return a store of ``rows`` images that exist only as vectors; image n has the id ``p/n``."""
    drawn = np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    keys = [key_of(str(n)) for n in range(rows)]
    table = images_table([(f"p/{n}", key, "/nowhere") for n, key in enumerate(keys)])
    make_store(
        root, table, captions_table([]), {"image": Side(keys, unit)}, fake_info(dim=dim),
        segment_rows=segment_rows,
    )  # fmt: skip
    return unit.astype(np.float16)


@pytest.mark.parametrize("segment_rows", [1_000, 40])
def test_vectors_come_with_their_ids(tmp_path: Path, segment_rows: int) -> None:
    """A view if one segment contains all, otherwise a copy; read-only in both cases."""
    expected = synthetic(tmp_path / "s", 100, 8, segment_rows)
    with mmindex.open(tmp_path / "s") as index:
        ids, vectors = index.vectors("image")
        parts = list(index.iter_vectors("image", rows=30))
    assert ids.tolist() == [f"p/{n}" for n in range(100)]
    assert vectors.dtype == np.float16
    np.testing.assert_array_equal(vectors, expected)
    assert not vectors.flags.writeable
    assert (vectors.base is not None) == (segment_rows == 1_000)
    assert [len(part) for _, part in parts] == [30, 30, 30, 10]
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), expected)
    assert [name for names, _ in parts for name in names] == ids.tolist()
    assert not any(part.flags.writeable for _, part in parts)


def test_twins_are_one_vector_under_the_first_id(tmp_path: Path) -> None:
    key, other = key_of("a"), key_of("b")
    table = images_table([("x/b", other, "/1"), ("x/1", key, "/2"), ("x/2", key, "/3")])
    unit = np.eye(2, 4, dtype=np.float32)
    make_store(
        tmp_path / "s", table, captions_table([]), {"image": Side([key, other], unit)},
        fake_info(dim=4), group_rows=1,
    )  # fmt: skip
    with mmindex.open(tmp_path / "s") as index:
        ids, vectors = index.vectors()
        assert ids.tolist() == ["x/1", "x/b"]
        np.testing.assert_array_equal(vectors, unit.astype(np.float16))
        with pytest.raises(mmindex.NoInputError, match="no captions"):
            index.vectors("text")
        with pytest.raises(mmindex.NoInputError, match="no captions"):
            index.iter_vectors("text")  # at the call, not at the first element
        with pytest.raises(mmindex.UsageError, match="`rows` is 0"):
            index.iter_vectors(rows=0)
        with pytest.raises(TypeError):
            index.vectors(3)  # type: ignore[arg-type]


WALK = """
import sys, psutil, mmindex
process, peak = psutil.Process(), 0
with mmindex.open(sys.argv[1]) as index:
    walk = index.iter_vectors(rows=4096)
    seen = len(next(walk)[0])
    first = process.memory_info().rss
    for ids, vectors in walk:
        seen += len(ids)
        peak = max(peak, process.memory_info().rss)
print(seen, peak - first)
"""


def test_iterating_over_100_000_rows_takes_constant_memory(tmp_path: Path) -> None:
    """All vectors take 102 MB, and one part 4 MB."""
    rows, dim = 100_000, 512
    synthetic(tmp_path / "s", rows, dim)
    done = subprocess.run(
        [sys.executable, "-c", WALK, tmp_path / "s"], capture_output=True, text=True, check=True
    )
    seen, growth = map(int, done.stdout.split())
    assert seen == rows
    assert growth < 24 << 20
