"""The cheapest setting that reaches the recall target is chosen, the same each time."""

import faiss
import numpy as np
import pytest

from mmindex.core.errors import InternalError
from mmindex.index.exact import exact_search
from mmindex.index.faissio import find_candidates
from mmindex.index.plan import plan
from mmindex.index.train import build
from mmindex.index.tune import (
    TUNING_QUERIES,
    Tuning,
    candidate_count,
    choose,
    estimated_ms,
    hold,
    tune,
    yardstick,
)
from mmindex.store.vectors import Vectors, write_removed, write_segment
from support.clustered import clustered
from support.index_stores import open_objects

N, DIM = 3_000, 48


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    objects = open_objects(tmp_path_factory.mktemp("store"))
    refs = write_segment(objects, "image", 0, DIM, [clustered(N, DIM)])
    return Vectors(objects, refs, "image", DIM)


@pytest.fixture(scope="module")
def built(corpus):
    recipe = plan(N, DIM, "ivfpq")
    return recipe, build(recipe, corpus, None, 0, 1)


def test_the_cheapest_point_at_the_target_is_chosen():
    points = [(1, 1, 0.5, 1.0), (4, 2, 0.96, 3.0), (2, 8, 0.97, 4.0), (8, 1, 0.9, 2.0)]
    chosen = choose(points, 0.95)
    assert (chosen.nprobe, chosen.k_factor, chosen.recall, chosen.reached) == (4, 2, 0.96, True)
    assert [point[3] for point in chosen.curve] == [1.0, 2.0, 3.0, 4.0]


def test_points_that_cost_more_and_find_less_are_not_kept():
    chosen = choose([(1, 1, 0.5, 1.0), (2, 1, 0.4, 2.0), (3, 1, 0.5, 3.0)], 0.45)
    assert chosen.curve == ((1, 1, 0.5, 1.0),)


def test_an_unreachable_target_gets_the_best_point_and_is_reported():
    chosen = choose([(1, 1, 0.5, 1.0), (4, 2, 0.8, 3.0), (8, 2, 0.8, 6.0)], 0.95)
    assert (chosen.nprobe, chosen.k_factor, chosen.reached) == (4, 2, False)


def test_queries_of_the_corpus_do_not_count_themselves_as_answers(corpus):
    yard = yardstick(corpus, None, None, 0, 1)
    assert len(yard.own) == TUNING_QUERIES
    assert yard.truth.shape == (TUNING_QUERIES, 10)
    assert (yard.truth != yard.own[:, None]).all()
    np.testing.assert_array_equal(yard.queries, corpus.take(yard.own).astype(np.float32))


def test_queries_outside_the_corpus_keep_all_answers(corpus):
    queries = clustered(900, DIM, 7).astype(np.float32)
    yard = yardstick(corpus, None, queries, 0, 1)
    assert yard.own is None
    assert len(yard.queries) == TUNING_QUERIES
    truth = exact_search(corpus.blocks(500), yard.queries, 10, 1)[1]
    np.testing.assert_array_equal(yard.truth, truth)


def test_queries_of_another_model_are_a_bug(corpus):
    with pytest.raises(InternalError, match="dimensions"):
        yardstick(corpus, None, np.ones((3, DIM + 1), np.float32), 0, 1)


def test_the_measured_recall_is_that_of_a_search_with_the_setting(corpus, built):
    """Using depths as prefixes of one search gives the same results as separate searches.

    Except for ties: fast scan sums 8-bit table entries, and many codes get the same sum.
    """
    recipe, index = built
    queries = clustered(200, DIM, 8).astype(np.float32)
    yard = yardstick(corpus, None, queries, 0, 1)
    tuning = tune(index, recipe, yard, 0.9, 1)
    for nprobe, k_factor, recall, cost in tuning.curve[:: max(1, len(tuning.curve) // 4)]:
        found = find_candidates(index, yard.queries, candidate_count(10, k_factor), nprobe)
        hits = [len(np.intersect1d(a, b)) for a, b in zip(found, yard.truth, strict=True)]
        assert recall == pytest.approx(np.mean(hits) / 10, abs=0.003)
        assert cost == estimated_ms(recipe, nprobe, k_factor)


def test_own_queries_are_measured_without_their_own_place(corpus, built):
    recipe, index = built
    yard = yardstick(corpus, None, None, 0, 1)
    tuning = tune(index, recipe, yard, 0.9, 1)
    found = find_candidates(index, yard.queries, 10 * tuning.k_factor + 1, tuning.nprobe)
    hits = []
    for ids, truth, own in zip(found, yard.truth, yard.own, strict=True):
        others = ids[ids != own][: 10 * tuning.k_factor]
        hits.append(len(np.intersect1d(others, truth)))
    assert tuning.recall == pytest.approx(np.mean(hits) / 10, abs=0.003)
    assert tuning.reached


def test_a_higher_target_never_gets_a_cheaper_setting(corpus, built):
    recipe, index = built
    yard = yardstick(corpus, None, None, 0, 1)
    costs = []
    for target in (0.5, 0.8, 0.9, 0.95, 0.99):
        tuning = tune(index, recipe, yard, target, 1)
        assert tuning.recall >= target
        costs.append(estimated_ms(recipe, tuning.nprobe, tuning.k_factor))
    assert costs == sorted(costs)


def test_tuning_is_the_same_every_time(corpus, built):
    recipe, index = built
    yard = yardstick(corpus, None, None, 3, 1)
    assert tune(index, recipe, yard, 0.95, 1) == tune(index, recipe, yard, 0.95, 1)


def test_an_index_without_lists_is_tuned_by_depth_alone(corpus):
    recipe = plan(N, DIM, "PQ24x4fs")
    index = build(recipe, corpus, None, 0, 1)
    tuning = tune(index, recipe, yardstick(corpus, None, None, 0, 1), 0.9, 1)
    assert {point[0] for point in tuning.curve} == {1}
    assert tuning.reached


def test_threads_are_restored(corpus, built):
    before = faiss.omp_get_max_threads()
    tune(built[1], built[0], yardstick(corpus, None, None, 0, 1), 0.5, 1)
    assert faiss.omp_get_max_threads() == before


def test_removed_rows_are_neither_queries_nor_answers(tmp_path):
    objects = open_objects(tmp_path)
    gone = np.sort(np.random.default_rng(0).choice(N, 2_000, replace=False))
    refs = write_segment(objects, "image", 0, DIM, [clustered(N, DIM)])
    vectors = Vectors(objects, (*refs, *write_removed(objects, "image", gone)), "image", DIM)
    yard = yardstick(vectors, None, None, 0, 1)
    assert len(yard.own) == TUNING_QUERIES
    assert not np.isin(yard.own, gone).any()
    assert not np.isin(yard.truth, gone).any()
    asked = clustered(300, DIM, 7).astype(np.float32)
    assert not np.isin(yardstick(vectors, None, asked, 0, 1).truth, gone).any()


def test_a_more_expensive_setting_of_the_last_version_is_kept_while_it_finds_more(built, corpus):
    recipe, index = built
    yard = yardstick(corpus, None, None, 0, 1)
    found = tune(index, recipe, yard, 0.9, 1)
    held = hold(index, recipe, yard, found, (recipe.nlist, 32), 1)
    assert (held.nprobe, held.k_factor, held.reached) == (recipe.nlist, 32, True)
    assert held.recall >= found.recall
    assert held.curve == found.curve


def test_a_setting_that_no_longer_reaches_the_target_is_replaced(built, corpus):
    recipe, index = built
    yard = yardstick(corpus, None, None, 0, 1)
    found = tune(index, recipe, yard, 0.97, 1)
    assert hold(index, recipe, yard, found, (1, 1), 1) == found


def test_a_more_expensive_setting_that_finds_less_is_replaced(built, corpus):
    """Many lists and few candidates cost more than few lists and many candidates."""
    recipe, index = built
    yard = yardstick(corpus, None, None, 0, 1)
    found = Tuning(1, 1, 1.0, True, ())
    assert hold(index, recipe, yard, found, (recipe.nlist, 1), 1) == found
