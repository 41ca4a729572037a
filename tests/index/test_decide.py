"""The rules for extending an index or training it again."""

from __future__ import annotations

from itertools import pairwise

import faiss
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmindex.core.config import IndexConfig
from mmindex.index.decide import Change, compare, recipe_of, segments_kept, why_anew
from mmindex.index.plan import plan, with_lists
from support.index_stores import key_of
from support.manifests import index_info

CONFIG = IndexConfig(threads=1)
RECIPE = recipe_of("a model", CONFIG)


def column(values):
    return pa.chunked_array([pa.array(values, pa.string())])


def change_of(added=0, removed=0, rows=100_000):
    ids = pa.chunked_array([pa.nulls(rows, pa.string())])
    return Change(ids, np.arange(removed), column([str(n) for n in range(added)]))


def info_of(n=20_000, **other):
    values = {
        "dim": 64,
        "factory": plan(n, 64, "ivfpq").factory,
        "recipe": RECIPE,
        "faiss_version": faiss.__version__,
    }
    return index_info(n=n, **{**values, **other})


@given(st.lists(st.integers(0, 30), unique=True), st.lists(st.integers(0, 30), unique=True))
def test_ids_stay_with_their_keys_and_new_keys_come_last(old, new):
    keys = [key_of(item) if item % 3 else None for item in old]
    live = [key_of(item) for item in new if item % 3]
    change = compare(column(keys), column(live))
    after = change.next_ids().to_pylist()
    known = {key for key in keys if key is not None}
    assert after[: len(keys)] == [key if key in live else None for key in keys]
    assert after[len(keys) :] == [key for key in live if key not in known]
    assert [keys[place] for place in change.gone] == [
        key for key in keys if key is not None and key not in live
    ]
    assert change.size == len(change.gone) + len(change.fresh)


def test_small_changes_extend():
    assert why_anew(info_of(), change_of(100, 100), RECIPE, CONFIG) == ""


def test_the_share_changed_since_training_decides():
    """Additions and removals since training, relative to the vectors that were trained on."""
    info = info_of(changed=3_000, trained_on=20_000, rows=20_000)
    assert why_anew(info, change_of(500, 500), RECIPE, CONFIG) == ""
    why = why_anew(info, change_of(501, 500), RECIPE, CONFIG)
    assert why == "20.0% changed since training, more than 20.0%"
    late = IndexConfig(threads=1, retrain_at=0.5)
    assert recipe_of("a model", late) == RECIPE
    assert why_anew(info, change_of(5_000, 500), RECIPE, late) == ""


def test_four_times_as_many_vectors_need_other_lists():
    config = IndexConfig(threads=1, retrain_at=100)
    info = info_of(10_000)
    assert why_anew(info, change_of(30_000), RECIPE, config) == ""
    assert "4 times" in why_anew(info, change_of(30_001), RECIPE, config)


@pytest.mark.parametrize(
    ("n", "factory", "change", "wants"),
    [
        (9_990, "", change_of(10), "quantised"),
        (9_990, "", change_of(9), ""),
        (10_000, "PCAR64,IVF128,PQ32x4fsr", change_of(0, 1), "exact"),
    ],
)
def test_auto_changes_the_kind_at_its_threshold(n, factory, change, wants):
    why = why_anew(info_of(n, factory=factory), change, RECIPE, CONFIG)
    assert wants in why
    assert bool(why) == bool(wants)


def test_exact_search_is_compacted_beyond_a_tenth_of_removed_rows():
    info = info_of(910, factory="", rows=1_000, trained_on=1_000)
    assert why_anew(info, change_of(0, 10), RECIPE, CONFIG) == ""
    assert why_anew(info, change_of(0, 11), RECIPE, CONFIG) == "10.1% of the rows have been removed"


def test_other_settings_models_and_faiss_versions_rebuild_the_index():
    change = change_of()
    for recipe in (
        recipe_of("other", CONFIG),
        recipe_of("a model", IndexConfig(recall_target=0.9)),
        recipe_of("a model", IndexConfig(seed=5)),
    ):
        assert why_anew(info_of(), change, recipe, CONFIG) == "another model or other settings"
    assert recipe_of("a model", IndexConfig(threads=7, gpu="never")) == RECIPE
    old = info_of(faiss_version="1.7")
    assert "faiss 1.7" in why_anew(old, change, RECIPE, CONFIG)


def test_an_index_of_a_manifest_that_does_not_know_of_extending_is_rebuilt():
    """Its settings are unknown; all its other values are those of an index built from scratch."""
    data = msgspec.to_builtins(info_of(500, measured_recall=0.97, factory=""))
    for name in ("rows", "trained_on", "changed", "trained_recall", "recipe"):
        del data[name]
    info = msgspec.convert(data, type(info_of()))
    assert (info.rows, info.trained_on, info.changed, info.trained_recall) == (500, 500, 0, 0.97)
    assert why_anew(info, change_of(1), RECIPE, CONFIG) == "another model or other settings"


def test_a_memory_limit_that_asks_for_shorter_codes_rebuilds_the_index():
    limit = plan(20_000, 64, "ivfpq").bytes + 1_000
    config = IndexConfig(threads=1, memory_bytes=limit)
    recipe = recipe_of("a model", config)
    info = info_of(recipe=recipe)
    assert why_anew(info, change_of(1), recipe, config) == ""
    assert "no longer fit" in why_anew(info, change_of(3_000), recipe, config)


def test_an_index_whose_centres_have_no_codes_is_kept():
    """Indexes of earlier versions; also with a memory limit."""
    new = plan(100_000, 64, "ivfpq")
    old = with_lists(new.factory, f"IVF{new.nlist}")
    assert old != new.factory
    for limit in (None, new.bytes + 100_000):
        config = IndexConfig(threads=1, memory_bytes=limit)
        recipe = recipe_of("a model", config)
        info = info_of(100_000, factory=old, recipe=recipe)
        assert why_anew(info, change_of(100, 100), recipe, config) == ""


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60))
def test_segments_stay_few_and_each_is_at_least_twice_the_next(added):
    sizes: list[int] = []
    copied = 0
    for rows in added:
        kept = segments_kept(sizes, rows)
        tail = sum(sizes[kept:]) + rows
        copied += tail
        sizes = [*sizes[:kept], tail]
        assert all(left >= 2 * right for left, right in pairwise(sizes))
    assert sum(sizes) == sum(added)
    assert copied <= sum(added) * (2 + np.log2(len(added)) * 2)


def test_nothing_added_touches_no_segment():
    assert segments_kept([5, 5, 5], 0) == 3
