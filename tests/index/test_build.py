"""The index stage: deterministic objects, an accurate report, the best of several recipes."""

import numpy as np
import pytest

from mmindex.core.config import IndexConfig
from mmindex.core.errors import InternalError, UsageError
from mmindex.index import build as stage
from mmindex.index.build import build_index
from mmindex.index.plan import plan
from mmindex.store.snapshot import Snapshot
from support.clustered import clustered
from support.index_stores import indexed, key_of, manifest_of, open_objects, write_shards


def keys_of(n):
    return [key_of(number) for number in range(n)]


@pytest.mark.parametrize("kind", ["auto", "ivfpq"])
def test_the_same_input_gives_the_same_manifest_and_objects(tmp_path, kind):
    """Independent of the clock: settings are chosen by recall and a cost model."""
    config = IndexConfig(kind=kind, threads=1, seed=4)
    made = [indexed(tmp_path / name, clustered(900, 32), config).manifest for name in ("a", "b")]
    assert made[0].content() == made[1].content()


def test_ids_and_vectors_are_in_the_order_of_the_keys(tmp_path):
    vectors = clustered(300, 16)
    order = np.random.default_rng(0).permutation(300)[:200].tolist()
    snapshot = indexed(tmp_path, vectors, IndexConfig(threads=1), order=order)
    names = [ref.name for ref in snapshot.manifest.objects]
    assert names == ["ids/image", "vectors/image/00000", "digests/image/00000"]
    assert snapshot.keys("image").to_pylist() == [key_of(number) for number in order]
    stored = snapshot.vectors("image")
    np.testing.assert_array_equal(stored.take(np.arange(200)), vectors[order])


def test_the_report_says_what_was_chosen_and_measured(tmp_path):
    objects = open_objects(tmp_path)
    shards = write_shards(objects, clustered(2_000, 48))
    config = IndexConfig(kind="ivfpq", threads=1, recall_target=0.9, seed=7)
    report = build_index(objects, "image", keys_of(2_000), shards, config)
    info = report.info
    assert info.factory == plan(2_000, 48, "ivfpq").factory
    assert (info.modality, info.n, info.dim, info.seed, info.threads) == ("image", 2_000, 48, 7, 1)
    assert info.training_rows == 2_000
    assert info.recall_target == 0.9
    assert info.measured_recall >= 0.9
    assert (info.nprobe, info.k_factor, info.measured_recall) in [p[:3] for p in info.curve]
    assert "IVF-PQ" in info.reason
    assert [ref.name for ref in report.objects][-1] == "index/image"
    assert {"gather", "truth", "build", "tune", "write"} <= set(report.seconds)


def test_exact_search_needs_no_index_file_and_measures_nothing(tmp_path):
    manifest = indexed(tmp_path, clustered(50, 16), IndexConfig(threads=1)).manifest
    info = manifest.indexes["image"]
    assert info.exact
    assert info.measured_recall is None
    assert manifest.find("index/image") is None


@pytest.mark.parametrize(("n", "kind"), [(1, "auto"), (1, "ivfpq"), (10, "ivfpq"), (1, "Flat")])
def test_a_tiny_corpus_is_indexed_by_a_stated_rule(tmp_path, n, kind):
    manifest = indexed(tmp_path, clustered(n, 16), IndexConfig(kind=kind, threads=1)).manifest
    assert manifest.indexes["image"].n == n
    assert f"{n} vectors" in manifest.indexes["image"].reason


def test_no_live_keys_give_an_empty_exact_index(tmp_path):
    objects = open_objects(tmp_path)
    shards = write_shards(objects, clustered(5, 16))
    report = build_index(objects, "image", [], shards, IndexConfig(kind="ivfpq", threads=1))
    assert (report.info.n, report.info.exact) == (0, True)
    assert Snapshot(objects, manifest_of(report)).vectors("image").n == 0


def test_queries_from_the_other_modality_get_the_probes_they_need(tmp_path):
    """Queries that differ from the corpus need more lists than the vectors of the corpus itself."""
    vectors = clustered(6_000, 48, 1)
    away = clustered(400, 48, 2).astype(np.float32)  # other clusters, another mean
    config = IndexConfig(kind="ivfflat", threads=1)
    own = indexed(tmp_path / "own", vectors, config).manifest.indexes["image"]
    other = indexed(tmp_path / "other", vectors, config, away).manifest.indexes["image"]
    assert other.nprobe > own.nprobe
    assert other.measured_recall >= 0.95


def test_the_next_recipe_is_tried_if_the_first_misses_the_target(tmp_path, monkeypatch):
    """Rotations that remove too much are detected by measuring recall on the real index."""
    poor, good = plan(2_000, 64, "PCAR4,IVF16,PQ2x4fsr"), plan(2_000, 64, "ivfpq")
    monkeypatch.setattr(stage, "candidates", lambda *_: (poor, good, poor))
    manifest = indexed(
        tmp_path, clustered(2_000, 64), IndexConfig(kind="ivfpq", threads=1)
    ).manifest
    assert manifest.indexes["image"].factory == good.factory
    assert "below the target" not in manifest.indexes["image"].reason


def test_a_target_out_of_reach_keeps_the_best_recipe_and_says_so(tmp_path, monkeypatch):
    worst, poor = plan(2_000, 64, "PCAR2,IVF16,PQ1x4fsr"), plan(2_000, 64, "PCAR4,IVF16,PQ2x4fsr")
    monkeypatch.setattr(stage, "candidates", lambda *_: (worst, poor, worst))
    manifest = indexed(
        tmp_path, clustered(2_000, 64), IndexConfig(kind="ivfpq", threads=1)
    ).manifest
    info = manifest.indexes["image"]
    assert info.factory == poor.factory
    assert info.measured_recall < 0.95
    assert "below the target 0.95" in info.reason


def test_a_large_corpus_compares_recipes_on_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "REHEARSAL_ROWS", 500)
    monkeypatch.setattr(stage, "_REHEARSE_FROM", 1_000)
    poor, good = plan(2_000, 64, "PCAR4,IVF16,PQ2x4fsr"), plan(2_000, 64, "ivfpq")
    monkeypatch.setattr(stage, "candidates", lambda *_: (poor, good))
    objects = open_objects(tmp_path)
    shards = write_shards(objects, clustered(2_000, 64))
    config = IndexConfig(kind="ivfpq", threads=1)
    report = build_index(objects, "image", keys_of(2_000), shards, config)
    assert report.info.factory == good.factory
    assert report.info.n == 2_000
    assert "rehearse" in report.seconds


def test_an_impossible_index_writes_nothing(tmp_path):
    objects = open_objects(tmp_path)
    shards = write_shards(objects, clustered(100, 16))
    before = sorted(objects.layout.objects_dir.rglob("*"))
    with pytest.raises(UsageError):
        build_index(objects, "image", keys_of(100), shards, IndexConfig(kind="IVF500,Flat"))
    assert sorted(objects.layout.objects_dir.rglob("*")) == before


def test_a_live_key_without_a_vector_is_a_bug(tmp_path):
    objects = open_objects(tmp_path)
    shards = write_shards(objects, clustered(10, 16))
    with pytest.raises(InternalError, match="no vector"):
        build_index(objects, "image", keys_of(11), shards, IndexConfig())
