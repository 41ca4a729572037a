"""Exact search equals brute force, with one rule for ties, for any block size."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmindex.index.exact import exact_search, rerank, score, widen
from support.clustered import clustered


def cut(vectors, size):
    ids = np.arange(len(vectors))
    return [
        (ids[start : start + size], vectors[start : start + size])
        for start in range(0, len(vectors), size)
    ]


def brute_force(vectors, queries, k):
    """Score every pair; order by score, then by id."""
    scores = np.stack([score(query[None], widen(vectors)[None])[0] for query in queries])
    order = np.lexsort((np.broadcast_to(np.arange(len(vectors)), scores.shape), -scores))[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


def test_widening_gives_the_bits_that_astype_gives():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    np.testing.assert_array_equal(
        widen(every).view(np.uint32), every.astype(np.float32).view(np.uint32)
    )


def test_widening_takes_rows_that_are_not_contiguous():
    rows = clustered(20, 8)[:, ::2]
    np.testing.assert_array_equal(widen(rows), rows.astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 120),
    dim=st.integers(1, 40),
    k=st.integers(1, 150),
    block=st.integers(1, 130),
    copies=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_any_block_size_gives_the_answers_of_brute_force(n, dim, k, block, copies, seed):
    rng = np.random.default_rng(seed)
    distinct = clustered(n, dim, seed)[: max(1, n // copies)]
    vectors = distinct[rng.integers(0, len(distinct), n)]
    queries = clustered(5, dim, seed + 1).astype(np.float32)
    scores, ids = exact_search(cut(vectors, block), queries, k, threads=1)
    expected_scores, expected_ids = brute_force(vectors, queries, k)
    width = min(n, k)
    np.testing.assert_array_equal(ids[:, :width], expected_ids)
    np.testing.assert_array_equal(scores[:, :width], expected_scores)
    assert (ids[:, width:] == -1).all()
    assert np.isneginf(scores[:, width:]).all()


def test_more_equal_vectors_than_wanted_are_answered_by_the_lowest_ids():
    vectors = np.repeat(clustered(1, 64), 500, axis=0)
    queries = clustered(3, 64, 5).astype(np.float32)
    _, ids = exact_search(cut(vectors, 200), queries, 10, threads=1)
    np.testing.assert_array_equal(ids, np.tile(np.arange(10), (3, 1)))


@pytest.mark.parametrize("dim", [1, 7, 64, 100, 512])
def test_a_query_gets_the_same_bits_alone_and_in_a_batch(dim):
    vectors, queries = clustered(2_000, dim), clustered(300, dim, 1).astype(np.float32)
    scores, ids = exact_search(cut(vectors, 700), queries, 10, threads=2)
    for number in (0, 17, 299):
        alone = exact_search(cut(vectors, 2_000), queries[number : number + 1], 10, threads=1)
        np.testing.assert_array_equal(alone[0][0], scores[number])
        np.testing.assert_array_equal(alone[1][0], ids[number])


def test_nothing_to_search_or_to_ask_is_not_an_error():
    scores, ids = exact_search([], clustered(2, 8).astype(np.float32), 3)
    assert (ids == -1).all()
    assert np.isneginf(scores).all()
    scores, ids = exact_search(cut(clustered(5, 8), 5), np.empty((0, 8), np.float32), 3)
    assert scores.shape == ids.shape == (0, 3)


def test_faiss_settings_are_restored():
    threads, threshold = faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold
    exact_search(cut(clustered(50, 8), 50), clustered(2, 8).astype(np.float32), 3, threads=1)
    assert faiss.omp_get_max_threads() == threads
    assert faiss.cvar.distance_compute_blas_threshold == threshold


@pytest.mark.parametrize("dim", [1, 7, 64, 512, 768])
def test_one_query_is_reranked_with_the_bits_of_a_batch(dim):
    rng = np.random.default_rng(dim)
    rows = rng.standard_normal((300, dim)).astype(np.float16)
    queries = rng.standard_normal((5, dim), dtype=np.float32)
    found = np.stack([rng.permutation(300)[:80] for _ in queries])
    found[1, 7:], found[2] = -1, -1
    rows[found[3, :20]] = rows[found[3, 0]]  # equal scores
    for k in (1, 10, 100):
        scores, ids = rerank(rows.__getitem__, queries, found, k)
        for number in range(len(queries)):
            one = slice(number, number + 1)
            alone = rerank(rows.__getitem__, queries[one], found[one], k)
            np.testing.assert_array_equal(alone[0], scores[one])
            np.testing.assert_array_equal(alone[1], ids[one])


def test_reranking_orders_candidates_by_exact_score_and_pads():
    vectors, queries = clustered(100, 16), clustered(4, 16, 1).astype(np.float32)
    candidates = np.full((4, 60), -1, dtype=np.int64)
    candidates[:3, :50] = np.random.default_rng(0).permutation(100)[:50]
    scores, ids = rerank(vectors.__getitem__, queries, candidates, 55)
    allowed = np.sort(candidates[0, :50])
    _, expected = brute_force(vectors[allowed], queries[:3], 50)
    np.testing.assert_array_equal(ids[:3, :50], allowed[expected])
    assert (ids[:3, 50:] == -1).all()
    assert (ids[3] == -1).all(), "a query without candidates has no answer"
    assert np.isneginf(scores[3]).all()
