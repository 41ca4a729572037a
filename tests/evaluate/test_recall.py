"""Recall compared with answers computed by hand, and with a dense oracle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmindex.core.errors import InternalError
from mmindex.evaluate import recall
from mmindex.evaluate.corpus import Items, Queries
from mmindex.evaluate.recall import Recall, exact_scan, ranks_in_answers, summarize


class Matrix:
    """Vectors in memory, read in blocks like those of a store."""

    def __init__(self, rows: object) -> None:
        self.matrix = np.atleast_2d(np.asarray(rows, dtype=np.float16))
        self.n, self.dim = self.matrix.shape

    def take(self, ids: NDArray[np.int64]) -> NDArray[np.float16]:
        return self.matrix[ids]

    def blocks(self, rows: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        for start in range(0, self.n, rows):
            yield self.live_ids()[start : start + rows], self.matrix[start : start + rows]

    def live_ids(self) -> NDArray[np.int64]:
        return np.arange(self.n)


def ids(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def one_right(vectors: Matrix, query_ids: NDArray[np.int64], right: NDArray[np.int64]) -> Queries:
    return Queries(vectors, query_ids, np.arange(len(right) + 1), right)


def exact_ranks(queries: Queries, gallery: Items) -> NDArray[np.int64]:
    return exact_scan(queries, gallery, 3).ranks


# Four images on the axes of a 4-d space; captions lean towards them by known amounts.
AXES = Matrix(np.eye(4))


def test_text_to_image_ranks_match_those_computed_by_hand() -> None:
    """Scores of each caption with the images A B C D, and the rank of its own image."""
    captions = Matrix(
        [
            [0.75, 0.5, 0.25, 0.125],  # own A leads with 0.75: rank 1
            [0.75, 0.5, 0.25, 0.125],  # own C: A and B lead: rank 3
            [0.0, 0.25, 0.5, 0.75],  # own A: all others lead: rank 4
            [0.25, 0.5, 0.0, 0.25],  # own D: B leads; A ties and comes before it: rank 3
            [0.25, 0.5, 0.0, 0.25],  # own A: B leads; D ties but comes after it: rank 2
        ]
    )
    queries = one_right(captions, np.arange(5), ids(0, 2, 0, 3, 0))
    ranks = exact_ranks(queries, Items(AXES, np.arange(4)))
    assert ranks.tolist() == [1, 3, 4, 3, 2]
    assert summarize(ranks) == Recall(r1=20.0, r5=100.0, r10=100.0, medr=3.0, queries=5)


def test_image_to_text_counts_the_best_of_a_varying_number_of_captions() -> None:
    """A has captions 0 and 3, B has 1, and C has 2. D has none and is not a query."""
    captions = Matrix(
        [
            [0.25, 0.5, 0.0, 0.0],  # A: second best for A
            [0.5, 0.25, 0.0, 0.0],  # B: best for A, third for B
            [0.0, 0.0, 0.5, 0.0],  # C: the only one for C
            [0.25, 0.75, 0.0, 0.0],  # A: best for B; ties with caption 0 for A
        ]
    )
    queries = Queries(AXES, ids(0, 1, 2), ids(0, 2, 3, 4), ids(0, 3, 1, 2))
    ranks = exact_ranks(queries, Items(captions, np.arange(4)))
    assert ranks.tolist() == [2, 3, 1]
    assert summarize(ranks) == Recall(
        r1=pytest.approx(100 / 3), r5=100.0, r10=100.0, medr=2.0, queries=3
    )


def test_images_without_captions_stay_in_the_gallery() -> None:
    """D has no caption, but is nearer to A's only caption than A."""
    captions = Matrix([[0.5, 0.0, 0.0, 0.75]])
    ranks = exact_ranks(one_right(captions, ids(0), ids(0)), Items(AXES, np.arange(4)))
    assert ranks.tolist() == [2]


def test_the_same_bytes_under_two_names_are_two_items_and_the_lower_row_wins() -> None:
    """Rows 0 and 1 have the same vector: the first is found at rank 1, the second after it."""
    images = Items(AXES, ids(0, 0, 1, 2))
    captions = Matrix([[1.0, 0.5, 0.0, 0.0]])
    queries = one_right(captions, ids(0, 0, 0), ids(0, 1, 2))
    assert exact_ranks(queries, images).tolist() == [1, 2, 3]


def test_the_same_caption_for_two_images_is_two_items_of_the_gallery() -> None:
    """Captions 0 (of A) and 1 (of B) are the same text, so B's own is second for B."""
    texts = Matrix([[0.5, 0.5, 0.0, 0.0], [0.0, 0.25, 0.5, 0.0]])
    captions = Items(texts, ids(0, 0, 1))
    ranks = exact_ranks(Queries(AXES, ids(0, 1, 2), ids(0, 1, 2, 3), ids(0, 1, 2)), captions)
    assert ranks.tolist() == [1, 2, 1]


def test_a_constant_model_gets_the_recall_of_random_answers() -> None:
    """If all items have the same vector, each of n images is first for one query in n."""
    same = Matrix(np.full((20, 4), 0.5))
    ranks = exact_ranks(one_right(same, np.arange(20), np.arange(20)), Items(same, np.arange(20)))
    assert ranks.tolist() == list(range(1, 21))
    assert summarize(ranks) == Recall(r1=5.0, r5=25.0, r10=50.0, medr=10.5, queries=20)


def test_the_median_of_an_even_number_of_ranks_is_the_mean_of_the_middle_two() -> None:
    summary = summarize(ids(1, 2, 5, 100))
    assert summary == Recall(r1=25.0, r5=75.0, r10=75.0, medr=3.5, queries=4)


def test_no_queries_give_no_recall() -> None:
    assert summarize(ids()) is None
    empty = Queries(AXES, ids(), ids(0), ids())
    assert exact_ranks(empty, Items(AXES, np.arange(4))).shape == (0,)


def test_a_median_beyond_the_depth_searched_is_unknown() -> None:
    assert summarize(ids(1, 0, 0)) == Recall(
        r1=pytest.approx(100 / 3),
        r5=pytest.approx(100 / 3),
        r10=pytest.approx(100 / 3),
        medr=None,
        queries=3,
    )
    known = summarize(ids(1, 3, 0))
    assert known is not None
    assert known.medr == 3.0


def test_answers_are_ranked_with_all_rows_of_duplicates() -> None:
    """Id 0 has two rows, so everything after it is one rank lower."""
    images = Items(AXES, ids(0, 0, 1, 2))
    queries = one_right(AXES, ids(0, 0, 0, 0), ids(1, 2, 3, 0))
    answers = np.array([[0, 1], [0, 1], [0, 1], [1, -1]], dtype=np.int64)
    assert ranks_in_answers(answers, queries, images).tolist() == [2, 3, recall.UNRANKED, 0]


def test_index_recall_counts_any_of_equally_near_neighbours() -> None:
    truth = np.array([[0.9, 0.8], [0.9, 0.8]])
    assert recall.index_recall(np.array([[0.9, 0.8], [0.8, 0.7]]), truth) == 75.0
    assert recall.index_recall(np.array([[0.9, 0.8], [0.9, 0.8]]), truth) == 100.0


def test_index_recall_of_a_small_corpus_counts_the_existing_vectors() -> None:
    truth = np.array([[0.9, 0.8, -np.inf]])
    assert recall.index_recall(np.array([[0.9, -np.inf, -np.inf]]), truth) == 50.0
    assert recall.index_recall(np.empty((0, 3)), np.empty((0, 3))) is None


def test_scores_of_answers_are_those_of_the_vectors_they_name() -> None:
    answers = np.array([[2, -1], [0, 1]], dtype=np.int64)
    queries = np.array([[0.0, 0.0, 0.5, 0.0], [0.25, 0.75, 0.0, 0.0]])
    scores = recall.scores_of(queries, answers, AXES)
    assert scores.tolist() == [[0.5, -np.inf], [0.25, 0.75]]


def test_a_query_without_a_correct_answer_is_refused() -> None:
    with pytest.raises(InternalError, match="correct answer"):
        Queries(AXES, ids(0, 1), ids(0, 1, 1), ids(0))


def test_a_row_that_names_no_vector_is_refused() -> None:
    with pytest.raises(InternalError, match="row without a vector"):
        Items(AXES, ids(0, 4))


def oracle(queries: Queries, gallery: Items) -> list[int]:
    """Dense and slow: sort all rows by (-score, row) and find the rank of the first right one."""
    ranks = []
    matrix = gallery.vectors.take(gallery.id_of_row).astype(np.float64)
    for number, query_id in enumerate(queries.ids):
        vector = queries.vectors.take(ids(int(query_id)))[0].astype(np.float64)
        scores = [float(np.dot(vector, row)) for row in matrix]
        order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
        right = set(queries.right[queries.offsets[number] : queries.offsets[number + 1]].tolist())
        ranks.append(1 + min(order.index(row) for row in right))
    return ranks


@st.composite
def corpora(draw: st.DrawFn) -> tuple[Queries, Items]:
    """Small corpora with many duplicates and ties, in real float16 unit vectors."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dim = draw(st.integers(2, 9))
    levels = draw(st.sampled_from([2, 3, 1000]))  # few levels: many equal scores
    n_ids, n_rows = draw(st.integers(1, 12)), draw(st.integers(1, 30))

    def unit(n: int) -> Matrix:
        raw = rng.integers(1, levels + 1, (n, dim)).astype(np.float64)
        return Matrix(raw / np.linalg.norm(raw, axis=1, keepdims=True))

    gallery = Items(unit(n_ids), rng.integers(0, n_ids, n_rows))
    counts = rng.integers(1, 5, draw(st.integers(1, 10)))
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    queries = Queries(
        unit(7), rng.integers(0, 7, len(counts)), offsets, rng.integers(0, n_rows, offsets[-1])
    )
    return queries, gallery


@settings(max_examples=200, deadline=None)
@given(corpora(), st.integers(1, 7), st.integers(1, 7))
def test_ranks_equal_a_full_sort_in_any_block_shape(
    corpus: tuple[Queries, Items], query_rows: int, gallery_rows: int
) -> None:
    """Ties are exact, so other block sizes change no rank."""
    queries, gallery = corpus
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall, "_QUERY_ROWS", query_rows)
        patch.setattr(recall, "_GALLERY_ROWS", gallery_rows)
        patch.setattr(recall, "_PAIR_ROWS", query_rows)
        scan = exact_scan(queries, gallery, 3)
    assert scan.ranks.tolist() == oracle(queries, gallery)
    vectors = gallery.vectors.take(np.arange(gallery.vectors.n)).astype(np.float64)
    scores = queries.vectors.take(queries.ids).astype(np.float64) @ vectors.T
    nearest = np.sort(np.pad(scores, ((0, 0), (0, 3)), constant_values=-np.inf), axis=1)
    assert scan.nearest.tolist() == nearest[:, :-4:-1].tolist()


def clip_benchmark(scores: NDArray[np.float64], right: NDArray[np.bool_], k: int) -> float:
    """The metric of zeroshot_retrieval: the share of queries whose recall@k is above 0."""
    top = np.argsort(-scores, axis=1)[:, :k]
    found = np.take_along_axis(right, top, axis=1).sum(axis=1)
    return float(100 * (found / right.sum(axis=1) > 0).mean())


def test_recall_is_what_clip_benchmark_computes_from_dense_matrices() -> None:
    """Both directions, with two to five captions per image, without ties."""
    rng = np.random.default_rng(11)
    owner = np.repeat(np.arange(60), rng.integers(2, 6, 60))
    images = rng.standard_normal((60, 8))
    texts = images[owner] + 1.5 * rng.standard_normal((len(owner), 8))
    left, right = (Matrix(m / np.linalg.norm(m, axis=1, keepdims=True)) for m in (images, texts))
    scores = right.matrix.astype(np.float64) @ left.matrix.astype(np.float64).T
    pairs = owner[:, None] == np.arange(60)
    to_image = summarize(
        exact_ranks(one_right(right, np.arange(len(owner)), owner), Items(left, np.arange(60)))
    )
    offsets = np.concatenate(([0], np.cumsum(np.bincount(owner))))
    asked = Queries(left, np.arange(60), offsets, np.arange(len(owner)))
    to_text = summarize(exact_ranks(asked, Items(right, np.arange(len(owner)))))
    for summary, matrix, positive in ((to_image, scores, pairs), (to_text, scores.T, pairs.T)):
        assert summary is not None
        figures = [clip_benchmark(matrix, positive, k) for k in (1, 5, 10)]
        assert [summary.r1, summary.r5, summary.r10] == pytest.approx(figures)
        assert 5 < figures[0] < 95


@settings(max_examples=50, deadline=None)
@given(corpora())
def test_an_exact_searcher_gives_the_ranks_of_a_full_scan(corpus: tuple[Queries, Items]) -> None:
    """Ranks in the complete list of answers differ from exact ranks only if ids tie."""
    queries, gallery = corpus
    matrix = queries.vectors.take(queries.ids).astype(np.float64)
    scores = matrix @ gallery.vectors.take(np.arange(gallery.vectors.n)).astype(np.float64).T
    distinct = all(len(set(row)) == len(row) for row in scores.tolist())
    answers = np.argsort(-scores, axis=1, kind="stable")
    found = ranks_in_answers(answers, queries, gallery)
    if distinct:
        assert found.tolist() == exact_ranks(queries, gallery).tolist()
    assert (found >= 1).all()


def test_the_same_vector_under_many_ids_ties_to_the_last_bit_at_real_size() -> None:
    """BLAS sums in an order that depends on the block; float64 makes the order irrelevant."""
    rng = np.random.default_rng(5)
    raw = rng.standard_normal((700, 512))
    vectors = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    vectors[350:] = vectors[:350]
    gallery = Items(Matrix(vectors), np.arange(700))
    queries = one_right(Matrix(vectors[:350]), np.arange(350), np.arange(350, 700))
    assert (exact_ranks(queries, gallery) == 2).all()
