"""Maps: positions, groups with names, and outliers, for any corpus."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import mmindex
from mmindex.core.errors import CannotCreateError, UsageError
from mmindex.insight import corpus_map as maps
from mmindex.insight import projection
from mmindex.insight.clusters import by_size, distinct_names, group
from mmindex.insight.corpus_map import CorpusMap, corpus_map
from mmindex.insight.projection import components, neighbours, project
from mmindex.pages.map import map_page
from mmindex.search.filters import select_images
from mmindex.store.snapshot import Snapshot, open_snapshot
from support.images import write_pngs
from support.models import FakeEncoder
from support.pages import HOSTILE, assert_self_contained
from support.stores import Side, captions_table, image_store, images_table, key_of, make_store

Float32 = NDArray[np.float32]


def clumps(n: int, seed: int = 0, dim: int = 24) -> tuple[Float32, NDArray[np.int64]]:
    """Unit vectors around four centres, and the number of each one's centre."""
    rng = np.random.default_rng(seed)
    owners = rng.integers(4, size=n)
    vectors = rng.normal(size=(4, dim))[owners] + 0.3 * rng.normal(size=(n, dim))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32), owners


def stored(root: Path, vectors: Float32, texts: Float32 | None = None) -> Snapshot:
    """A store of vectors without images, optionally with one caption for each."""
    names = [f"v/{n}" for n in range(len(vectors))]
    said = [(name, f"caption {n}") for n, name in enumerate(names)] if texts is not None else []
    sides = {"image": Side([key_of(name) for name in names], vectors)}
    if texts is not None:
        sides["text"] = Side([key_of(text) for _, text in said], texts)
    images = images_table([(name, key_of(name), f"vectors.npy#{name}") for name in names])
    make_store(root, images, captions_table(said), sides, FakeEncoder(dim=vectors.shape[1]).info)
    return open_snapshot(root)


def drawn(snapshot: Snapshot, found: CorpusMap) -> str:
    page = map_page(snapshot, found)
    assert_self_contained(page, script=bool(found.points))
    return page


@pytest.mark.slow
def test_near_vectors_are_near_and_the_same_seed_draws_the_same_map(tmp_path: Path) -> None:
    vectors, owners = clumps(400)
    snapshot = stored(tmp_path, vectors)
    found = corpus_map(snapshot)
    assert (found.method, found.reason) == ("t-SNE", "")
    assert found == corpus_map(snapshot)
    assert found.points != corpus_map(snapshot, seed=1).points
    xy = np.array([(point.x, point.y) for point in found.points])
    assert xy.min() >= 0
    assert xy.max() <= 1
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert np.mean(owners[apart.argmin(axis=1)] == owners) > 0.99
    assert sum(one.size for one in found.groups) == 400
    assert [one.size for one in found.groups] == sorted(
        (g.size for g in found.groups), reverse=True
    )


@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_a_few_images_have_a_map(tmp_path: Path, n: int) -> None:
    snapshot = stored(tmp_path, clumps(n)[0])
    found = corpus_map(snapshot)
    assert found.method == "PCA"
    assert f"there are {n}" in found.reason
    assert len(found.points) == n
    assert (found.points[0].similarity is None) == (n == 1)
    assert "PCA instead of t-SNE" in drawn(snapshot, found)


def test_equal_vectors_are_one_group_in_the_middle(tmp_path: Path) -> None:
    snapshot = stored(tmp_path, np.repeat(clumps(1)[0], 50, axis=0))
    found = corpus_map(snapshot)
    assert {(point.x, point.y, point.group) for point in found.points} == {(0.5, 0.5, 1)}
    assert found.outliers == ()
    drawn(snapshot, found)


def test_images_apart_from_all_others_are_outliers(tmp_path: Path) -> None:
    vectors, _ = clumps(100)
    vectors[17] = -vectors.mean(axis=0) / np.linalg.norm(vectors.mean(axis=0))
    found = corpus_map(stored(tmp_path, vectors))
    assert found.outliers[0] == 17
    assert len(found.outliers) <= 8


def test_groups_have_the_names_of_different_captions_near_them(tmp_path: Path) -> None:
    vectors, owners = clumps(200)
    found = corpus_map(stored(tmp_path, vectors, vectors))
    names = [one.name for one in found.groups]
    assert len(set(names)) == len(names) > 3
    for one in found.groups:
        said = int(one.name.removeprefix("caption "))
        assert owners[said] == owners[one.typical[0]]


def test_names_of_captions_and_images_are_inert(tmp_path: Path) -> None:
    names = [text.replace("\ud83d", "") for text in HOSTILE]
    images = dict(zip(names, write_pngs(tmp_path / "p", len(names)), strict=True))
    image_store(tmp_path / "s", images, [*zip(names, HOSTILE, strict=True)], FakeEncoder())
    snapshot = open_snapshot(tmp_path / "s")
    page = drawn(snapshot, corpus_map(snapshot))
    assert "<script>alert" not in page
    assert "</script><" not in page.replace("</script>\n<", "")
    assert "\u202e" not in page


def test_a_condition_selects_images_and_copies_share_a_point(tmp_path: Path) -> None:
    [one, two] = write_pngs(tmp_path / "p", 2)
    copy = tmp_path / "p" / "copy.png"
    copy.write_bytes(one.read_bytes())
    image_store(tmp_path / "s", {"a": one, "b": copy, "c": two}, [], FakeEncoder())
    snapshot = open_snapshot(tmp_path / "s")
    whole = corpus_map(snapshot)
    assert (whole.images, whole.distinct) == (3, 2)
    assert [(point.id, point.copies) for point in whole.points] == [("a", 1), ("c", 0)]
    part = corpus_map(snapshot, rows=select_images(snapshot, "image_id = 'b'"))
    assert [(point.id, point.copies) for point in part.points] == [("b", 0)]
    empty = corpus_map(snapshot, rows=np.zeros(3, dtype=np.bool_))
    assert (empty.points, empty.groups, empty.outliers) == ((), (), ())
    assert "No images." in drawn(snapshot, empty)


def test_more_images_than_points_are_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "MOST_POINTS", 20)
    snapshot = stored(tmp_path, clumps(60)[0])
    found = corpus_map(snapshot)
    assert found.sampled
    assert (found.images, len(found.points)) == (60, 20)
    assert "a sample of 20" in drawn(snapshot, found)


def test_without_the_package_components_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        projection, "find_spec", lambda name: None if name == "openTSNE" else find(name)
    )
    parts = components(clumps(60)[0])
    found = project(parts, neighbours(parts), 0)
    assert found.method == "PCA"
    assert "pip install 'mmindex[map]'" in found.reason


def test_a_vector_is_not_its_own_neighbour_even_among_equal_ones() -> None:
    parts = components(np.repeat(clumps(20)[0], 10, axis=0))
    near = neighbours(parts)
    assert not (near.ids == np.arange(200)[:, None]).any()


def test_groups_are_numbered_by_size() -> None:
    assert by_size(np.array([7, 3, 3, 5, 5])).tolist() == [2, 0, 0, 1, 1]
    assert group(np.zeros((100, 2), dtype=np.float32), 0).tolist() == [0] * 100
    assert distinct_names(np.array([[0.9, 0.1], [0.8, 0.1], [0.7, 0.2]]), ["a", "b"]) == [
        "a",
        "b",
        "",
    ]


def test_python_writes_the_page(tmp_path: Path) -> None:
    images = {f"f/{n}": path for n, path in enumerate(write_pngs(tmp_path / "p", 8))}
    image_store(tmp_path / "s", images, [], FakeEncoder())
    with mmindex.open(tmp_path / "s") as index:
        found = index.map(tmp_path / "map.html", where="width > 0")
        assert len(found.points) == 8
        assert_self_contained((tmp_path / "map.html").read_text("utf-8"), script=True)
        with pytest.raises(CannotCreateError):
            index.map(tmp_path / "none" / "map.html")
        with pytest.raises(UsageError, match="`labels`"):
            index.map(labels=["only one"])
        with pytest.raises(UsageError, match="`seed`"):
            index.map(seed=-1)
        with pytest.raises(TypeError, match="labels"):
            index.map(labels=5)  # type: ignore[arg-type]
