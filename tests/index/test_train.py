"""Indexes are trained on a seeded sample of all rows, with the same result each time."""

from dataclasses import replace

import faiss
import numpy as np
import pytest

from mmindex.core.errors import StorageError, UsageError
from mmindex.index.exact import exact_search, rerank
from mmindex.index.faissio import find_candidates, ivf_part, read_index, write_index
from mmindex.index.gpu import GpuInfo
from mmindex.index.plan import candidates, plan, with_lists
from mmindex.index.train import build, sample_rows
from mmindex.store import publish
from mmindex.store.vectors import Vectors, write_segment
from support.clustered import clustered
from support.index_stores import open_objects
from support.manifests import index_info

N, DIM = 2_500, 64


def stored(folder, vectors):
    objects = open_objects(folder)
    refs = write_segment(objects, "image", 0, vectors.shape[1], [vectors])
    return objects, Vectors(objects, refs, "image", vectors.shape[1])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("store"), clustered(N, DIM))[1]


def recall_of(index, corpus, nprobe, depth):
    queries = clustered(200, DIM, 9).astype(np.float32)
    truth = exact_search(corpus.blocks(1_000), queries, 10, 1)[1]
    found = find_candidates(index, queries, depth, nprobe)
    _, ids = rerank(corpus.take, queries, found, 10)
    return np.mean([len(np.intersect1d(a, b)) for a, b in zip(ids, truth, strict=True)]) / 10


def test_the_sample_is_seeded_spread_over_all_rows_and_never_the_first():
    rows = sample_rows(100_000, 1_000, 1)
    np.testing.assert_array_equal(rows, sample_rows(100_000, 1_000, 1))
    assert not np.array_equal(rows, sample_rows(100_000, 1_000, 2))
    assert (np.diff(rows) > 0).all()
    assert rows[-1] > 90_000
    assert rows.mean() == pytest.approx(50_000, rel=0.1)
    np.testing.assert_array_equal(sample_rows(5, 9, 0), np.arange(5))


@pytest.mark.parametrize(
    ("factory", "nprobe", "depth", "least"),
    [
        ("ivfpq", 8, 80, 0.95),
        ("PCAR32,IVF16,PQ16x4fs", 8, 160, 0.9),
        ("OPQ16_32,IVF16,PQ16x4fsr", 8, 160, 0.9),
        ("PCAR32,IVF16,PQ16np", 8, 160, 0.9),
        ("IVF16,PQ8", 8, 160, 0.75),
        ("ivfflat", 16, 10, 0.95),
        ("sq8", 16, 20, 0.95),
        ("HNSW16", 1, 80, 0.7),
        ("Flat", 1, 10, 1.0),
        ("IDMap,Flat", 1, 10, 1.0),
    ],
)
def test_small_indexes_of_each_kind_find_the_neighbours(corpus, factory, nprobe, depth, least):
    """Real FAISS with small lists and codes; a wrong metric or id would fall below the limit."""
    index = build(plan(N, DIM, factory), corpus, None, 0, 1)
    assert index.ntotal == N
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    assert recall_of(index, corpus, nprobe, depth) >= least


@pytest.mark.slow
def test_codes_of_centres_find_the_lists_of_vectors_and_queries(tmp_path):
    n, dim = 45_000, 16
    _, many = stored(tmp_path, clustered(n, dim))
    coded = plan(n, dim, "ivfpq")
    exact = replace(coded, factory=with_lists(coded.factory, f"IVF{coded.nlist}"))
    assert coded.factory != exact.factory
    queries = many.take(np.arange(0, n, 100)).astype(np.float32)
    truth = exact_search(many.blocks(8_192), queries, 10, 1)[1]
    found = []
    for recipe in (coded, exact):
        index = build(recipe, many, None, 0, 1)
        near = find_candidates(index, queries, 100, coded.nlist // 16)
        ids = rerank(many.take, queries, near, 10)[1]
        hits = [len(np.intersect1d(a, b)) for a, b in zip(ids, truth, strict=True)]
        found.append(np.mean(hits) / 10)
    assert found[0] > found[1] - 0.02
    assert found[0] > 0.9


def test_every_planned_recipe_can_be_built(corpus):
    for recipe in candidates(N, DIM, "ivfpq"):
        index = build(recipe, corpus, None, 0, 1)
        assert recall_of(index, corpus, recipe.nlist, 320) > 0.95


@pytest.mark.parametrize(
    ("n", "dim"),
    [
        (16, 512),
        (17, 7),
        (40, 30),
        (100, 512),
        (159, 100),
        pytest.param(159, 512, marks=pytest.mark.slow),
        pytest.param(300, 1024, marks=pytest.mark.slow),
    ],
)
def test_ivfpq_can_be_built_from_very_few_vectors(tmp_path, n, dim, capfd):
    """Lists, codes and rotation shrink until training is possible without a warning of faiss."""
    _, corpus = stored(tmp_path, clustered(n, dim))
    for recipe in candidates(n, dim, "ivfpq"):
        index = build(recipe, corpus, None, 0, 1)
        assert index.ntotal == n
        ids = find_candidates(index, corpus.take(np.arange(n)).astype(np.float32), n, recipe.nlist)
        assert (np.sort(ids, axis=1) == np.arange(n)).all()
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_the_shared_mean_of_embeddings_does_not_mislead_the_codes(corpus):
    """faiss's own PCA subtracts the mean, which reorders inner products; ours only rotates."""
    index = build(plan(N, DIM, "ivfpq"), corpus, None, 0, 1)
    rotation = faiss.downcast_VectorTransform(index.chain.at(0))
    assert np.abs(faiss.vector_to_array(rotation.b)).max() < 1e-6
    matrix = faiss.vector_to_array(rotation.A).reshape(rotation.d_out, rotation.d_in)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(rotation.d_out), atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_one_seed_one_result_another_seed_another(corpus, threads):
    def bytes_of(seed):
        index = build(plan(N, DIM, "ivfpq"), corpus, None, seed, threads)
        return faiss.serialize_index(index).tobytes()

    assert bytes_of(5) == bytes_of(5)
    assert bytes_of(5) != bytes_of(6)


def test_a_rehearsal_holds_the_requested_rows_under_ids_from_zero(corpus):
    rows = np.arange(0, N, 3)
    index = build(plan(len(rows), DIM, "ivfpq"), corpus, rows, 0, 1)
    wide = corpus.take(rows).astype(np.float32)
    found = find_candidates(index, wide, 10, ivf_part(index).nlist)
    _, ids = rerank(lambda ids: corpus.take(rows[ids]), wide, found, 1)
    assert (ids[:, 0] == np.arange(len(rows))).mean() > 0.99


def test_thread_count_and_blas_threshold_are_restored(corpus):
    before = faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold
    build(plan(N, DIM, "ivfpq"), corpus, None, 0, 2)
    assert (faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold) == before


@pytest.mark.parametrize("factory", ["IVF16,PQ7", "PCAR128,IVF16,Flat", "Flat3x"])
def test_a_factory_string_that_faiss_rejects_is_a_usage_error(corpus, factory):
    with pytest.raises(UsageError, match="faiss rejects") as caught:
        build(plan(N, DIM, factory), corpus, None, 0, 1)
    assert "\n" not in caught.value.message


def test_an_error_of_a_gpu_names_the_way_out(corpus, monkeypatch):
    def no_memory(*_):
        raise RuntimeError("Error in virtual void* alloc(): cudaMalloc failed: out of memory")

    monkeypatch.setattr("mmindex.index.train.to_gpu_for_build", no_memory)
    with pytest.raises(UsageError, match="on a GPU: out of memory") as caught:
        build(plan(N, DIM, "ivfpq", None, GpuInfo(1)), corpus, None, 0, 1)
    assert "index.gpu to never" in caught.value.hint


def test_a_gpu_trains_and_is_filled_in_place_of_the_cpu(corpus, monkeypatch):
    """A CPU index stands in for the copy; it counts what it is asked."""
    calls = []

    def clone(index, m):
        calls.append(("copy", m, index.is_trained))
        return faiss.clone_index(index)

    def back(index):
        calls.append(("back", index.ntotal))
        return index

    monkeypatch.setattr("mmindex.index.train.to_gpu_for_build", clone)
    monkeypatch.setattr("mmindex.index.train.to_cpu", back)
    chosen = plan(N, DIM, "ivfpq", None, GpuInfo(1))
    index = build(chosen, corpus, None, 0, 1, fill=lambda _index: pytest.fail("filled elsewhere"))
    assert calls == [("copy", chosen.m, False), ("back", N)]
    assert ivf_part(index).pq.nbits == 8


def test_an_index_answers_the_same_after_writing_and_reading(corpus, tmp_path):
    objects = open_objects(tmp_path)
    index = build(plan(N, DIM, "ivfpq"), corpus, None, 0, 1)
    ref = write_index(objects, "image", index)
    assert (ref.name, ref.rows) == ("index/image", N)
    assert ref.bytes == objects.path(ref).stat().st_size == len(faiss.serialize_index(index))
    again = read_index(objects, ref, index_info("image", N, DIM))
    queries = clustered(20, DIM, 3).astype(np.float32)
    np.testing.assert_array_equal(
        find_candidates(index, queries, 30, 4), find_candidates(again, queries, 30, 4)
    )


def test_a_full_disk_while_faiss_writes_is_reported(corpus, tmp_path, monkeypatch):
    """faiss.write_index(path) would report success; writing through our file raises the error."""
    objects = open_objects(tmp_path)
    index = build(plan(N, DIM, "ivfpq"), corpus, None, 0, 1)
    room = len(faiss.serialize_index(index)) - 100

    class FullDisk(publish.StagedFile):
        def write(self, data):
            if self.size_bytes + memoryview(data).nbytes > room:
                raise StorageError("no space left on device")
            return super().write(data)

    monkeypatch.setattr("mmindex.store.objects.StagedFile", FullDisk)
    with pytest.raises(StorageError, match="no space left"):
        write_index(objects, "image", index)
    assert list(objects.layout.staging_dir.iterdir()) == []
