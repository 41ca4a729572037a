"""The plan is valid for every corpus size and dimension, and states its reason."""

import faiss
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmindex.core.errors import UsageError
from mmindex.index.gpu import LEGAL_M, LEGAL_SUB_DIMS, MAX_K, GpuInfo
from mmindex.index.plan import (
    EXACT_BELOW,
    candidates,
    for_sample,
    lists_for,
    plan,
    training_rows_for,
)

sizes = st.integers(0, 1_000_000_000)
dims = st.integers(1, 4_096)


@given(sizes, dims)
@example(9_999, 512)
@example(10_000, 512)
def test_auto_is_exact_below_ten_thousand_vectors_and_ivfpq_from_there(n, dim):
    chosen = plan(n, dim, "auto")
    assert chosen.exact == (n < EXACT_BELOW or dim == 1)
    assert chosen.exact or "PQ" in chosen.factory
    assert f"{n:,} vectors" in chosen.reason


@given(sizes, dims)
def test_exact_is_exact_at_any_size(n, dim):
    assert plan(n, dim, "exact").exact


@settings(max_examples=300)
@given(sizes, dims)
@example(15, 512)
@example(16, 512)
@example(159, 512)
@example(10_000, 7)
@example(10_000, 30)
@example(1_000_000_000, 1024)
def test_every_ivfpq_recipe_meets_the_training_requirements_of_faiss(n, dim):
    recipes = candidates(n, dim, "ivfpq")
    if recipes[0].exact:
        assert n < 16 or dim == 1
        assert "exact search" in recipes[0].reason
        return
    for recipe in recipes:
        assert recipe.bits == 4
        assert 16 <= recipe.training_rows <= n
        assert recipe.code_dim <= min(dim, recipe.training_rows), "PCA needs the rows"
        assert recipe.code_dim % recipe.m == 0
        assert 1 <= recipe.nprobe <= recipe.nlist
        assert recipe.nlist == 1 or recipe.nlist * 39 <= n
        assert recipe.training_rows * dim * 4 <= 4 << 30, "training stays in bounded memory"
        assert f"PQ{recipe.m}x4fsr" in recipe.factory
        assert recipe.bytes > 0


@settings(max_examples=300)
@given(st.integers(256, 1_000_000_000), st.integers(2, 4_096))
def test_every_recipe_for_a_gpu_is_supported_by_its_kernels(n, dim):
    for recipe in candidates(n, dim, "ivfpq", None, GpuInfo(1)):
        assert recipe.gpu
        assert recipe.factory.endswith("np"), "no polysemous training"
        assert recipe.bits == 8
        assert recipe.training_rows >= 256
        assert recipe.m in LEGAL_M
        assert recipe.code_dim % recipe.m == 0
        assert recipe.code_dim // recipe.m in LEGAL_SUB_DIMS
        assert recipe.nprobe <= MAX_K


def test_too_few_rows_for_8_bits_fall_back_to_4_bits_on_the_cpu():
    chosen = plan(255, 64, "ivfpq", None, GpuInfo(1))
    assert (chosen.bits, chosen.gpu) == (4, False)


@given(st.integers(16, 1_000_000_000), st.integers(2, 2_048), st.integers(1, 1 << 40))
def test_a_memory_limit_is_met_or_refused_with_the_minimum(n, dim, budget):
    refused = None
    try:
        assert plan(n, dim, "ivfpq", budget).bytes <= budget
    except UsageError as error:
        refused = error.message
    if refused is not None:
        assert f"{budget:,}" in refused
        least = int(refused.split("at least ")[1].split(" bytes")[0].replace(",", ""))
        assert least > budget
        assert plan(n, dim, "ivfpq", least).bytes <= least


def test_a_smaller_budget_gives_shorter_codes():
    lengths = [plan(200_000, 512, "auto", mib << 20).m for mib in (64, 12, 8, 6)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


def test_a_gpu_that_is_too_small_is_reported_before_the_run():
    with pytest.raises(UsageError, match="the limit is"):
        plan(10_000_000, 512, "auto", None, GpuInfo(1, memory_bytes=1 << 20))


@given(st.integers(1, 1_000_000_000))
def test_lists_are_a_power_of_two_that_grows_with_the_root_of_n(n):
    lists = lists_for(n)
    assert lists & (lists - 1) == 0
    assert lists <= 65_536
    if 80_000 <= n <= 150_000_000:
        assert 3.2 < lists / n**0.5 < 6.6


@given(st.integers(1, 1_000_000_000), dims)
def test_the_training_sample_is_never_larger_than_the_corpus(n, dim):
    assert 1 <= training_rows_for(n, dim, lists_for(n)) <= n


@pytest.mark.parametrize(
    ("n", "dim"), [(16, 3), (100, 7), (159, 512), (1_000, 30), (20_000, 100), (300_000, 768)]
)
@pytest.mark.parametrize("kind", ["ivfpq", "ivfflat", "sq8"])
def test_faiss_accepts_every_planned_factory_string(n, dim, kind):
    for gpu in (None, GpuInfo(1)):
        for recipe in candidates(n, dim, kind, None, gpu):
            index = faiss.index_factory(dim, recipe.factory, faiss.METRIC_INNER_PRODUCT)
            assert faiss.extract_index_ivf(index).nlist == recipe.nlist


def test_the_largest_corpora_get_the_design_recipe():
    assert plan(200_000, 512, "auto").factory == "PCAR256,IVF2048(PQ64x4fs,RFlat),PQ128x4fsr"
    assert plan(10_000_000, 512, "auto").factory == "PCAR256,IVF16384(PQ64x4fs,RFlat),PQ128x4fsr"


def test_more_dimensions_are_kept_if_recall_is_too_low():
    kept = [recipe.factory.split(",")[0] for recipe in candidates(200_000, 1024, "auto")]
    assert kept == ["PCAR256", "PCAR512", "PCAR1024", "OPQ128_256"]


def test_a_rehearsal_keeps_the_recipe_and_shrinks_the_lists():
    big = plan(10_000_000, 512, "auto")
    small = for_sample(big, 131_072)
    assert small.factory == "PCAR256,IVF2048(PQ64x4fs,RFlat),PQ128x4fsr"
    assert (small.m, small.code_dim, small.n) == (big.m, big.code_dim, 131_072)


@pytest.mark.parametrize(
    ("factory", "nlist", "m", "bits"),
    [
        ("IVF256,PQ64", 256, 64, 8),
        ("OPQ64_256,IVF1024,PQ64np", 1024, 64, 8),
        ("PCAR64,IVF16,PQ32x4fs", 16, 32, 4),
        ("HNSW32", 1, 0, 32),
        ("Flat", 1, 0, 32),
    ],
)
def test_a_factory_string_is_taken_as_it_is(factory, nlist, m, bits):
    chosen = plan(20_000, 512, factory)
    assert (chosen.factory, chosen.nlist, chosen.m, chosen.bits) == (factory, nlist, m, bits)


@pytest.mark.parametrize(
    ("kind", "n", "says"),
    [
        ("nonsense", 100, "unknown index 'nonsense'"),
        ("", 100, "unknown index ''"),
        ("IVF256,Flat", 100, "256 lists need at least as many vectors"),
        ("IVF16,PQ16x4fs,Refine(SQfp16)", 100, "re-ranking is not part"),
        ("IVF16,PQ16x4fs,RFlat", 100, "re-ranking is not part"),
    ],
)
def test_an_impossible_index_is_a_usage_error_that_says_why(kind, n, says):
    with pytest.raises(UsageError, match=says) as caught:
        plan(n, 64, kind)
    assert caught.value.hint


def test_a_factory_string_that_a_gpu_does_not_support_is_refused():
    with pytest.raises(UsageError, match="8-bit"):
        plan(20_000, 512, "IVF16,PQ32x4fs", None, GpuInfo(1))
