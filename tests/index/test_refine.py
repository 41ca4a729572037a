"""``index.refine = sq8``: half the bytes, and a recall that includes the rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmindex.core.config import IndexConfig
from mmindex.index.exact import exact_search
from mmindex.search.searcher import Searcher
from support.clustered import clustered
from support.growing import Growing, recall_of
from support.index_stores import indexed

N, DIM, K = 12_000, 64, 10


def test_measured_recall_is_against_the_vectors_as_encoded(tmp_path: Path) -> None:
    """Comparing rounded vectors with themselves would hide the loss caused by rounding."""
    rows = clustered(N + 400, DIM)
    vectors, queries = rows[:N], rows[N:].astype(np.float32)
    config = IndexConfig(kind="ivfpq", threads=1, refine="sq8", recall_target=0.9)
    snapshot = indexed(tmp_path, vectors, config, queries[:200])
    info = snapshot.manifest.indexes["image"]
    assert info.refine == "sq8"
    assert 0.9 < info.fidelity < 1.0
    assert info.measured_recall is not None
    assert 0.9 <= info.measured_recall <= info.fidelity
    fresh = queries[200:]
    _, truth = exact_search([(np.arange(N), vectors)], fresh, K, 1)
    _, found = Searcher(snapshot, "image", threads=1).search(fresh, K)
    recall = (truth[:, :, None] == found[:, None, :]).any(axis=2).mean()
    assert recall == pytest.approx(info.measured_recall, abs=0.03)
    stored = sum(ref.bytes for ref in snapshot.manifest.objects if ref.name.startswith("vectors/"))
    assert stored == N * (DIM + 4)


def test_exact_search_keeps_float16(tmp_path: Path) -> None:
    vectors = clustered(300, DIM)
    config = IndexConfig(kind="auto", threads=1, refine="sq8")
    snapshot = indexed(tmp_path, vectors, config)
    info = snapshot.manifest.indexes["image"]
    assert (info.refine, info.fidelity) == ("fp16", 1.0)
    searcher = Searcher(snapshot, "image", threads=1)
    scores, _ = searcher.search(vectors[:5].astype(np.float32), 3)
    exact, _ = exact_search([(np.arange(300), vectors)], vectors[:5].astype(np.float32), 3, 1)
    np.testing.assert_array_equal(scores, exact)


def test_an_index_in_8_bits_is_extended_in_8_bits(tmp_path: Path) -> None:
    """After additions and removals, every segment is still packed, and recall includes the loss."""
    rows = clustered(3_400, DIM, seed=4)
    pool, queries = rows[:3_200], rows[3_200:].astype(np.float32)
    config = IndexConfig(kind="ivfpq", threads=1, gpu="never", refine="sq8", recall_target=0.9)
    store = Growing(tmp_path, pool, config)
    first = store.step(range(3_000)).indexes["image"]
    live = np.arange(50, 3_200)
    made = store.step(live)
    info = made.indexes["image"]
    assert store.done == ("extended", 200, 50)
    assert (info.refine, info.fidelity) == ("sq8", first.fidelity)
    stored = [ref for ref in made.objects if ref.name.startswith("vectors/")]
    assert all(ref.bytes == ref.rows * (DIM + 4) for ref in stored)
    assert recall_of(store.answers(queries), store.truth(queries, live)) > 0.85
