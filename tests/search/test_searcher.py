"""The searcher returns exact scores, obeys filters and never reads a damaged file."""

import subprocess
import sys

import faiss
import msgspec
import numpy as np
import pytest

from mmindex.core.config import IndexConfig
from mmindex.core.errors import DataError, ModelMismatchError, NoInputError, UsageError
from mmindex.index.exact import exact_search, score, widen
from mmindex.index.faissio import find_candidates
from mmindex.index.gpu import GpuInfo
from mmindex.search import searcher as module
from mmindex.search.searcher import Searcher
from support.clustered import clustered
from support.index_stores import indexed, key_of
from support.stores import reopened, with_manifest

N, DIM = 4_000, 48
_ROWS = clustered(N + 200, DIM)
VECTORS, QUERIES = _ROWS[:N], _ROWS[N:].astype(np.float32)
KINDS = ["exact", "ivfpq", "ivfflat", "PCAR32,IVF16,PQ16np", "PQ24x4fs"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """One store for each kind of index, created when it is first needed."""
    made = {}

    def get(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp("store")
            made[kind] = indexed(folder, VECTORS, IndexConfig(kind=kind, threads=1))
        return made[kind]

    return get


def truth(queries, k, allowed=None):
    ids = np.arange(N) if allowed is None else np.sort(allowed)
    scores, places = exact_search([(np.arange(len(ids)), VECTORS[ids])], queries, k, 1)
    return scores, np.where(places >= 0, ids[places], -1)


def recall(found, expected):
    hits = [len(np.intersect1d(a[b >= 0], b[b >= 0])) for a, b in zip(found, expected, strict=True)]
    return sum(hits) / (expected >= 0).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_hits_are_found_scored_exactly_and_ordered(stores, kind):
    searcher = Searcher(stores(kind), "image", threads=1)
    scores, ids = searcher.search(QUERIES, 10)
    assert scores.dtype == np.float32
    assert ids.dtype == np.int64
    assert recall(ids, truth(QUERIES, 10)[1]) >= (1.0 if kind == "exact" else 0.92)
    np.testing.assert_array_equal(scores, score(QUERIES, widen(VECTORS)[ids]))
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(row)) == 10 for row in ids.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_of_the_corpus_finds_itself_first(stores, kind):
    searcher = Searcher(stores(kind), "image", threads=1)
    own = np.arange(0, N, 50)
    scores, ids = searcher.search(VECTORS[own].astype(np.float32), 1)
    assert (ids[:, 0] == own).mean() == 1.0
    assert (scores[:, 0] > 0.999).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_gets_the_same_answer_alone_in_a_batch_and_after_reopening(stores, kind):
    snapshot = stores(kind)
    scores, ids = Searcher(snapshot, "image", threads=1).search(QUERIES, 10)
    again = Searcher(reopened(snapshot), "image", threads=2)
    for number in (0, 7, 199):
        alone = again.search(QUERIES[number : number + 1], 10)
        np.testing.assert_array_equal(alone[0][0], scores[number])
        np.testing.assert_array_equal(alone[1][0], ids[number])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [N - 1, N, N + 7])
def test_k_around_the_size_of_the_corpus_gives_everything_and_pads(stores, kind, k):
    searcher = Searcher(stores(kind), "image", threads=1)
    scores, ids = searcher.search(QUERIES[:3], k)
    expected_scores, expected_ids = truth(QUERIES[:3], k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)
    assert (ids[:, N:] == -1).all()


@pytest.mark.parametrize("kind", ["ivfpq", "ivfflat"])
def test_more_hits_than_the_probed_lists_hold_are_found_by_a_scan(stores, kind):
    """There are never fewer hits than requested if the corpus has enough."""
    searcher = Searcher(stores(kind), "image", threads=1)
    for k in (300, 900, 1_900):
        _, ids = searcher.search(QUERIES[:20], k)
        assert (ids >= 0).all()
        assert all(len(set(row)) == k for row in ids.tolist())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.0003, 0.01, 0.1, 0.5, 0.9, 1.0])
def test_only_allowed_ids_are_answers_at_any_selectivity(stores, kind, share, monkeypatch):
    monkeypatch.setattr(module, "_SCAN_UP_TO", 300)
    rng = np.random.default_rng(int(share * 1e4))
    allowed = rng.permutation(N)[: round(N * share)]
    searcher = Searcher(stores(kind), "image", threads=1)
    scores, ids = searcher.search(QUERIES, 10, allowed)
    assert set(ids.ravel().tolist()) <= {-1, *allowed.tolist()}
    assert ((ids >= 0).sum(axis=1) == min(10, len(allowed))).all()
    if not len(allowed):
        assert np.isneginf(scores).all()
        return
    expected_scores, expected = truth(QUERIES, 10, allowed)
    if kind == "exact" or len(allowed) <= 300:
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_array_equal(scores, expected_scores)
    else:
        assert recall(ids, expected) >= 0.9


def test_a_filter_that_leaves_one_cluster_still_finds_its_vectors(stores, monkeypatch):
    """The hardest filter: allowed vectors are far from the query, in lists that are probed late."""
    monkeypatch.setattr(module, "_SCAN_UP_TO", 10)
    _, far = truth(-QUERIES[:1], 200)
    searcher = Searcher(stores("ivfpq"), "image", threads=1)
    _, ids = searcher.search(QUERIES[:1], 10, far[0])
    assert (ids >= 0).all()
    assert np.isin(ids, far[0]).all()


def test_allowed_ids_may_come_in_any_order_and_must_exist(stores):
    searcher = Searcher(stores("ivfpq"), "image", threads=1)
    allowed = np.array([30, 2, 2, 17], dtype=np.int64)
    _, ids = searcher.search(QUERIES[:1], 5, allowed)
    assert sorted(ids[0].tolist()) == [-1, -1, 2, 17, 30]
    for bad in (-1, N):
        with pytest.raises(UsageError, match="allowed ids"):
            searcher.search(QUERIES[:1], 5, np.array([0, bad]))


def test_many_queries_are_answered_in_batches_as_one_would_be(stores, monkeypatch):
    searcher = Searcher(stores("ivfpq"), "image", threads=1)
    whole = searcher.search(QUERIES, 10)
    monkeypatch.setattr(module, "_BATCH", 33)
    parts = searcher.search(QUERIES, 10)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])


@pytest.mark.parametrize("kind", ["exact", "ivfpq"])
def test_no_queries_give_no_answers(stores, kind):
    scores, ids = Searcher(stores(kind), "image").search(np.empty((0, DIM), np.float32), 3)
    assert scores.shape == ids.shape == (0, 3)


def test_equal_vectors_are_ordered_by_id(tmp_path):
    vectors = np.repeat(clustered(100, DIM), 30, axis=0)
    snapshot = indexed(tmp_path, vectors, IndexConfig(kind="ivfpq", threads=1))
    searcher = Searcher(snapshot, "image", threads=1)
    _, ids = searcher.search(vectors[::30].astype(np.float32), 30)
    np.testing.assert_array_equal(ids, np.arange(3_000).reshape(100, 30))


@pytest.mark.parametrize(("n", "kind"), [(1, "exact"), (1, "ivfpq"), (16, "ivfpq"), (159, "ivfpq")])
def test_a_tiny_corpus_answers(tmp_path, n, kind):
    snapshot = indexed(tmp_path, VECTORS[:n], IndexConfig(kind=kind, threads=1))
    searcher = Searcher(snapshot, "image", threads=1)
    _, ids = searcher.search(VECTORS[:n].astype(np.float32), 200)
    np.testing.assert_array_equal(ids[:, 0], np.arange(n))
    np.testing.assert_array_equal(np.sort(ids[:, :n], axis=1), np.tile(np.arange(n), (n, 1)))
    assert (ids[:, n:] == -1).all()


def test_an_empty_index_answers_nothing(tmp_path):
    snapshot = indexed(tmp_path, VECTORS[:5], IndexConfig(threads=1), order=[])
    scores, ids = Searcher(snapshot, "image").search(QUERIES[:2], 3)
    assert (ids == -1).all()
    assert np.isneginf(scores).all()


def test_keys_and_vectors_belong_to_ids(stores):
    snapshot = stores("ivfpq")
    searcher = Searcher(snapshot, "image", threads=1)
    assert searcher.keys(np.array([7, 0, 7])) == [key_of(7), key_of(0), key_of(7)]
    assert searcher.keys([]) == []
    np.testing.assert_array_equal(
        snapshot.vector_of("image", key_of(99)), VECTORS[99].astype(np.float32)
    )
    with pytest.raises(NoInputError, match="not in the image index"):
        snapshot.vector_of("image", "nobody")
    for bad in (-1, N):
        with pytest.raises(UsageError):
            searcher.keys([bad])


@pytest.mark.parametrize("shape", [(3, DIM + 1), (DIM,), (2, 2, DIM)])
def test_queries_of_another_model_are_refused(stores, shape):
    searcher = Searcher(stores("ivfpq"), "image", threads=1)
    with pytest.raises(ModelMismatchError, match=f"{DIM} dimensions"):
        searcher.search(np.zeros(shape, np.float32), 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_queries_that_are_not_finite_are_refused(stores, bad):
    queries = QUERIES[:3].copy()
    queries[1, 5] = bad
    with pytest.raises(DataError, match="not finite"):
        Searcher(stores("ivfpq"), "image", threads=1).search(queries, 5)


def test_k_below_one_is_refused(stores):
    with pytest.raises(UsageError, match="at least 1"):
        Searcher(stores("exact"), "image", threads=1).search(QUERIES, 0)


def test_a_modality_that_was_not_indexed_is_reported(stores):
    with pytest.raises(NoInputError, match="no text index"):
        Searcher(stores("exact"), "text")


@pytest.mark.parametrize("change", [{"n": N - 1}, {"dim": DIM * 2}, {"dim": DIM // 2}])
def test_an_index_that_does_not_fit_its_manifest_is_refused(stores, change):
    snapshot = stores("ivfpq")
    info = msgspec.structs.replace(snapshot.manifest.indexes["image"], **change)
    with pytest.raises(DataError):
        Searcher(with_manifest(snapshot, indexes={"image": info}), "image")


@pytest.mark.parametrize("name", ["ids/image", "index/image", "digests/image/00000"])
def test_a_manifest_without_a_part_of_the_index_is_refused(stores, name):
    snapshot = stores("ivfpq")
    rest = tuple(ref for ref in snapshot.manifest.objects if ref.name != name)
    with pytest.raises(DataError):
        Searcher(with_manifest(snapshot, objects=rest), "image")


class Clone:
    """Replaces an index on a GPU: the CPU index, which counts its queries."""

    def __init__(self, index, _m, nprobe):
        self.index, self.nprobe, self.asked = index, nprobe, []

    def search(self, queries, count):
        self.asked.append(count)
        return None, find_candidates(self.index, queries, count, self.nprobe)


def test_a_gpu_is_used_only_for_plain_searches_within_its_limits(stores, monkeypatch):
    """The GPU kernels would ignore a filter, and stop at 2,048 candidates."""
    monkeypatch.setattr(module, "to_gpu", Clone)
    monkeypatch.setattr(module, "_SCAN_UP_TO", 10)
    monkeypatch.setattr(module, "fits_search", lambda count, _nprobe: count <= 100)
    snapshot = stores("PCAR32,IVF16,PQ16np")
    searcher = Searcher(snapshot, "image", gpu=GpuInfo(1), threads=1)
    plain = Searcher(snapshot, "image", threads=1)
    asked = searcher._on_gpu.asked
    for k in (5, 60):
        expected, found = plain.search(QUERIES, k), searcher.search(QUERIES, k)
        np.testing.assert_array_equal(found[1], expected[1])
    assert asked == [10 * searcher.info.k_factor]
    searcher.search(QUERIES, 5, np.arange(0, N, 2))
    assert len(asked) == 1


def test_the_4_bit_form_stays_on_the_cpu_where_there_is_a_gpu(stores, monkeypatch):
    monkeypatch.setattr(module, "to_gpu", Clone)
    searcher = Searcher(stores("ivfpq"), "image", gpu=GpuInfo(1), threads=1)
    assert searcher._on_gpu is None


def test_threads_are_restored(stores):
    before = faiss.omp_get_max_threads()
    Searcher(stores("ivfpq"), "image", threads=1).search(QUERIES, 10)
    assert faiss.omp_get_max_threads() == before


def test_opening_a_searcher_does_not_import_torch():
    code = "import mmindex.search.searcher, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
