"""Successive versions: additions and removals without training or outdated results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmindex.core.config import IndexConfig
from mmindex.index import decide as rules
from mmindex.index import extend
from mmindex.index.tune import Tuning
from mmindex.store.objects import Objects
from support.clustered import clustered
from support.growing import Growing, recall_of
from support.models import fake_info

N, DIM = 3_000, 32
pytestmark = pytest.mark.slow
_ROWS = clustered(N + 1_200, DIM, seed=9)
POOL, QUERIES = _ROWS[:-200], _ROWS[-200:].astype(np.float32)
QUANTISED = ["ivfpq", "ivfflat", "sq8", "PCAR16,IVF16,PQ8np", "OPQ8_16,IVF16,PQ8x4fsr"]


def growing(folder, kind="ivfpq", pool=POOL, **other):
    config = IndexConfig(kind=kind, threads=1, gpu="never", **other)
    return Growing(folder, pool, config)


def test_unchanged_input_keeps_every_object(tmp_path):
    store = growing(tmp_path)
    before = store.step(range(N))
    assert store.done == ("trained", N, 0)
    assert store.step(range(N)) == before
    assert store.done == ("kept", 0, 0)
    assert store.why == "nothing changed"


@pytest.mark.parametrize("kind", ["exact", *QUANTISED])
def test_a_changed_corpus_is_answered_as_brute_force_would(tmp_path, kind):
    """Items are added, removed and replaced; a removed item is never an answer."""
    store = growing(tmp_path, kind)
    first = store.step(range(N))
    live = np.concatenate([np.arange(100, N), np.arange(N, N + 150)])
    made = store.step(live)
    assert store.done == ("extended", 150, 100)
    info = made.indexes["image"]
    assert (info.n, info.rows, info.changed, info.trained_on) == (N + 50, N + 150, 250, N)
    assert info.trained_recall == first.indexes["image"].measured_recall
    answers, truth = store.answers(QUERIES), store.truth(QUERIES, live)
    assert not {item for row in answers for item in row} & set(range(100))
    assert recall_of(answers, truth) >= (1.0 if kind == "exact" else 0.94)
    if kind == "exact":
        assert answers == truth
    scores, ids = store.searcher().search(QUERIES, 10)
    vectors = store.snapshot().vectors("image")
    stored = np.einsum("qkd,qd->qk", vectors.take(ids.ravel()).reshape(*ids.shape, -1), QUERIES)
    np.testing.assert_allclose(scores, stored, atol=1e-3)
    # With k equal to the corpus, a full scan answers; filters are combined with removed ids.
    everything = {item for row in store.answers(QUERIES[:3], N + 500) for item in row}
    assert everything == set(live.tolist())
    some = np.arange(0, info.rows, 3)
    _, found = store.searcher().search(QUERIES[:5], 2_000, some)
    kept = [item for item in some.tolist() if item >= 100]
    assert all(sorted(row[row >= 0].tolist()) == kept for row in found)


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_recall_after_a_change_is_that_of_a_newly_trained_index(tmp_path, share):
    """Within half a point at the same setting, and not below the previous version."""
    rows = clustered(13_600, 48, seed=2)
    pool, queries = rows[:12_600], rows[12_600:].astype(np.float32)
    store = growing(tmp_path / "a", "auto", pool)
    first = store.step(range(12_000)).indexes["image"]
    half = round(12_000 * share / 2)
    gone = np.random.default_rng(0).choice(12_000, half, replace=False)
    live = np.concatenate([np.setdiff1d(np.arange(12_000), gone), np.arange(12_000, 12_000 + half)])
    before = recall_of(store.answers(queries), store.truth(queries, range(12_000)))
    info = store.step(live).indexes["image"]
    assert store.done == ("extended", half, half)
    assert (info.nprobe, info.k_factor) >= (first.nprobe, first.k_factor)
    answers, truth = store.answers(queries), store.truth(queries, live)
    assert not np.isin(gone, [item for row in answers for item in row]).any()
    assert recall_of(answers, truth) >= before - 0.005
    afresh = growing(tmp_path / "b", "auto", pool)
    afresh.step(live)
    for nprobe, k_factor in [(2, 3), (4, 4), (8, 4), (32, 8)]:
        extended, trained = (
            recall_of(one.answers(queries, nprobe=nprobe, k_factor=k_factor), truth)
            for one in (store, afresh)
        )
        assert abs(extended - trained) <= 0.005


def test_drift_rebuilds_the_index(tmp_path):
    """Each version changes 9 %: two are extended, and the third is trained on its own vectors."""
    store = growing(tmp_path)
    store.step(range(N))
    for version, (action, changed) in enumerate(
        [("extended", 270), ("extended", 540), ("trained", 0)], start=1
    ):
        info = store.step(range(135 * version, N + 135 * version)).indexes["image"]
        assert store.done == (action, 135, 135)
        assert info.changed == changed
    assert "changed since training" in store.why
    assert (info.n, info.rows, info.trained_on) == (N, N, N)
    assert "removed/image" not in store.names()
    assert store.reports["index image"]["changed_share"] == 0


@pytest.mark.parametrize("kind", ["PQ8x4fs", "IDMap,Flat", "HNSW8"])
def test_forms_that_cannot_change_are_rebuilt_and_say_so(tmp_path, kind):
    store = growing(tmp_path, kind)
    store.step(range(500))
    store.step(range(5, 510))
    assert store.done == ("trained", 10, 5)
    assert "cannot remove vectors" in store.why


def test_recall_below_the_target_that_training_reached_rebuilds_the_index(tmp_path, monkeypatch):
    store = growing(tmp_path)
    store.step(range(N))
    monkeypatch.setattr(extend, "hold", lambda *_: Tuning(1, 1, 0.5, False, ()))
    store.step(range(1, N))
    assert store.done[0] == "trained"
    assert store.why == "recall fell to 0.500; training had reached 0.95"


def test_another_model_rebuilds_the_index_though_keys_are_the_same(tmp_path):
    store = growing(tmp_path)
    store.step(range(N))
    store.encoder = fake_info(seed=1)
    store.step(range(N - 1))
    assert store.done == ("trained", 0, 1)
    assert store.why == "another model or other settings"


def test_a_damaged_index_is_rebuilt(tmp_path):
    store = growing(tmp_path)
    store.step(range(N))
    ref = store.version().find("index/image")
    path = store.objects.layout.object(ref.sha256)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    store.step(range(1, N))
    assert store.done[0] == "trained"
    assert store.why == "the published one is damaged"


def test_exact_search_drops_removed_rows_when_they_are_a_tenth(tmp_path):
    store = growing(tmp_path, "exact")
    store.step(range(100))
    store.step(range(10, 100))
    assert store.done == ("extended", 0, 10)
    store.step(range(11, 100))
    assert store.done == ("trained", 0, 1)
    assert "removed" in store.why
    assert store.version().indexes["image"].rows == 89


def test_the_same_bytes_under_two_names_are_one_vector(tmp_path):
    """It stays as long as one of its names exists."""
    store = growing(tmp_path, "exact")
    store.step([*range(50), 7, 7])
    store.step([*range(50), 7, 51])
    assert store.done == ("extended", 1, 0)
    store.step([*range(7), *range(8, 50), 7, 51])
    assert store.done == ("kept", 0, 0)
    assert store.why == "its vectors did not change; it was tuned with new queries"
    store.step([*range(7), *range(8, 50), 51])
    assert store.done == ("extended", 0, 1)
    assert 7 not in {item for row in store.answers(QUERIES, 60) for item in row}


def test_an_item_that_comes_back_gets_a_new_id(tmp_path):
    store = growing(tmp_path, "ivfpq")
    store.step(range(N))
    store.step(range(1, N))
    info = store.step(range(N)).indexes["image"]
    assert (info.n, info.rows) == (N, N + 1)
    assert store.answers(POOL[:1].astype(np.float32), 1) == [[0]]


def test_segments_are_reused_and_small_ones_merged(tmp_path):
    store = growing(tmp_path, "ivfpq")
    store.step(range(N))
    first = store.version().find("vectors/image/00000")
    sizes = []
    for night in range(1, 7):
        store.step(range(night, N + 10 * night))
        assert store.version().find("vectors/image/00000") == first
        sizes.append([ref.rows for ref in store.version().named("vectors/image/")][1:])
    assert sizes == [[10], [20], [20, 10], [40], [40, 10], [40, 20]]
    vectors = store.snapshot().vectors("image")
    np.testing.assert_array_equal(vectors.take(vectors.live_ids()), POOL[np.arange(6, N + 60)])


@pytest.mark.parametrize("kind", ["exact", "ivfpq"])
def test_purge_leaves_nothing_of_what_was_removed(tmp_path, kind):
    """Neither vectors removed now nor vectors removed earlier remain, without training."""
    store = growing(tmp_path, kind)
    store.step(range(N))
    store.step(range(3, N + 20))
    kept = [ref for ref in store.version().objects if ref.name.startswith("vectors/image/00001")]
    live = [item for item in range(3, N + 20) if item != 77]
    made = store.step(live, purge=True)
    assert store.done == ("extended", 0, 1)
    gone = [0, 1, 2, 77]
    stored = b"".join(
        store.objects.layout.object(ref.sha256).read_bytes() for ref in made.named("vectors/image/")
    )
    assert [POOL[item].tobytes() in stored for item in gone] == [False] * 4
    assert all(POOL[item].tobytes() in stored for item in (3, 76, N + 19))
    assert made.find("vectors/image/00001") == kept[0]
    ids = store.objects.read_table(made.find("ids/image"))["key"]
    assert ids.null_count == 4
    assert not set(gone) & {item for row in store.answers(QUERIES, 50) for item in row}
    again = store.step(live, purge=True)
    assert [ref for ref in again.objects if ref.name.startswith("vectors/")] == [
        ref for ref in made.objects if ref.name.startswith("vectors/")
    ]


@pytest.mark.parametrize("kind", ["exact", "ivfpq"])
def test_the_same_history_gives_the_same_bytes(tmp_path, kind):
    made = []
    for name in ("a", "b"):
        store = growing(tmp_path / name, kind)
        store.step(range(N))
        store.step(range(20, N + 30))
        store.step(range(25, N + 40))
        made.append(store.version())
    assert made[0].content() == made[1].content()


def test_the_caption_index_is_extended_and_tuned_with_images(tmp_path):
    config = IndexConfig(kind="ivfpq", threads=1, gpu="never")
    store = Growing(tmp_path, POOL, config, texts=clustered(2_100, DIM, seed=4))
    store.step(range(N), captions=2_000)
    store.step(range(N), captions=2_100)
    text, image = store.reports["index text"], store.reports["index image"]
    assert (text["action"], text["added"], text["removed"]) == ("extended", 100, 0)
    assert (image["action"], image["added"]) == ("kept", 0)
    assert image["why"] == "its vectors did not change; it was tuned with new queries"
    golden = store.objects.read_table(store.version().find("golden/text"))
    assert max(max(row) for row in golden["ids"].to_pylist()) < 2_100


def test_an_index_from_before_extending_existed_is_read_and_built_anew(tmp_path):
    """Its manifest contains no recipe; its answers stay the same until something changes."""
    store = growing(tmp_path, "exact")
    made = store.step(range(50))
    old = type(made.indexes["image"])(
        **{
            name: getattr(made.indexes["image"], name)
            for name in made.indexes["image"].__struct_fields__
            if name not in ("rows", "trained_on", "changed", "trained_recall", "recipe")
        }
    )
    store.current = type(made)(
        **{name: getattr(made, name) for name in made.__struct_fields__ if name != "indexes"},
        indexes={"image": old},
    )
    assert store.answers(QUERIES) == store.truth(QUERIES, range(50))
    store.step(range(50))
    assert store.done == ("kept", 0, 0)
    store.step(range(51))
    assert store.done[0] == "trained"
    assert rules.recipe_of(store.encoder.fingerprint, store.config) == (
        store.version().indexes["image"].recipe
    )


@settings(max_examples=25, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["exact", "ivfpq", "ivfflat"]))
def test_any_history_of_additions_and_removals_answers_like_a_model(tmp_path_factory, data, kind):
    """The model is the set of live items, searched by brute force; ids never change."""
    pool = POOL[:400]
    store = growing(tmp_path_factory.mktemp("any"), kind, pool, retrain_at=1.0)
    live = set(range(200))
    items = st.sets(st.integers(0, 399), max_size=40)
    keys_before = {}
    for _ in range(data.draw(st.integers(1, 5), label="versions")):
        gone, come = data.draw(items, label="gone"), data.draw(items, label="come")
        live = (live - gone) | come
        store.step(sorted(live), purge=data.draw(st.booleans(), label="purge"))
        made = store.version()
        ids = Objects(store.objects.layout).read_table(made.find("ids/image"))["key"].to_pylist()
        if store.done[0] != "trained":
            moved = {at: key for at, key in keys_before.items() if ids[at] not in (key, None)}
            assert not moved
        keys_before = {at: key for at, key in enumerate(ids) if key is not None}
        assert len(keys_before) == len(live) == made.indexes["image"].n
        found = store.answers(QUERIES[:8], 1_000)
        assert found == store.truth(QUERIES[:8], sorted(live), 1_000)
        answers = {item for row in store.answers(QUERIES, 10) for item in row}
        assert answers <= live
