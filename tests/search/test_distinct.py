"""Results without near-duplicates: k different images with their number of copies."""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import mmindex
from mmindex.core.modality import Modality
from mmindex.core.records import Hit
from mmindex.search.distinct import Scope, distinct_hits
from mmindex.search.hits import Limit
from mmindex.search.near import default_threshold
from mmindex.search.rank import by_vector
from mmindex.search.searcher import Searcher
from mmindex.store.snapshot import Snapshot
from mmindex_cli.app import app
from support.models import FakeEncoder
from support.stores import Side, captions_table, images_table, key_of, make_store

DIM = FakeEncoder().info.dim


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def grouped(tmp_path: Path) -> tuple[Snapshot, np.ndarray, list[int]]:
    """Images in groups of 1 to 40 near-copies; some rows have the same bytes."""
    rng = np.random.default_rng(5)
    sizes = [40, 1, 7, 2, 1, 12, 3]
    centres = unit(rng.normal(size=(len(sizes), DIM)))
    owner = np.repeat(np.arange(len(sizes)), sizes)
    vectors = unit(centres[owner] + rng.normal(scale=0.002, size=(len(owner), DIM)))
    keys = [key_of(f"picture {n}") for n in range(len(owner))]
    rows = [(f"id/{n}", key, f"/photos/{n}.png") for n, key in enumerate(keys)]
    rows.append(("id/again", keys[1], "/photos/again.png"))
    captions = [("id/0", "a boat"), ("id/1", "a boat"), ("id/2", "a tree")]
    texts = Side(
        [key_of("a boat"), key_of("a tree")], FakeEncoder().encode_texts(["a boat", "a tree"])
    )
    snapshot = make_store(
        tmp_path / "store", images_table(rows), captions_table(captions),
        {"image": Side(keys, vectors), "text": texts}, FakeEncoder().info,
    )  # fmt: skip
    return snapshot, vectors, [*owner.tolist(), int(owner[1])]


def scope(snapshot: Snapshot, to: Modality = Modality.IMAGE) -> Scope:
    return Scope(snapshot, Searcher(snapshot, to), to, None, None)


def found_by(
    where: Scope, query: np.ndarray, limit: Limit, left_out: Set[str] = frozenset()
) -> tuple[Hit, ...]:
    find = by_vector(where.searcher, query, where.ids, limit)
    return distinct_hits(where, find, limit, left_out)[0]


@pytest.mark.parametrize("k", [1, 3, 7, 100])
def test_every_hit_is_of_another_group_and_counts_its_copies(grouped, k: int) -> None:
    """Also if the first group alone is many times larger than ``k``."""
    snapshot, vectors, owner = grouped
    found = found_by(scope(snapshot), vectors[0], Limit(k, distinct=True))
    groups = [owner[int(hit.id.removeprefix("id/").replace("again", "-1"))] for hit in found]
    assert len(set(groups)) == len(groups) == min(k, 7)
    assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
    for hit, group in zip(found, groups, strict=True):
        assert hit.copies == owner.count(group) - 1
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)


def test_the_best_hit_of_each_group_is_the_first_of_a_plain_search(grouped) -> None:
    snapshot, vectors, owner = grouped
    query = unit(vectors[45:46] + 0.3 * vectors[:1])[0]
    found = found_by(scope(snapshot), query, Limit(7, distinct=True))
    _, ids = scope(snapshot).searcher.search(query[None], len(vectors))
    best: dict[int, int] = {}
    for one in ids[0].tolist():
        best.setdefault(owner[one], one)
    assert [hit.id for hit in found] == [f"id/{one}" for one in best.values()]


def test_a_condition_and_a_minimum_score_apply_to_hits_and_copies(grouped) -> None:
    snapshot, vectors, owner = grouped
    rows = np.zeros(len(owner), np.bool_)
    rows[[0, 5, 41, 42, 43]] = True
    some = Scope(
        snapshot, Searcher(snapshot, Modality.IMAGE), Modality.IMAGE, rows,
        np.array([0, 5, 41, 42, 43]),
    )  # fmt: skip
    found = found_by(some, vectors[0], Limit(10, distinct=True))
    assert {(owner[int(hit.id.removeprefix("id/"))], hit.copies) for hit in found} == {
        (0, 1), (2, 2),
    }  # fmt: skip
    [only] = found_by(some, vectors[0], Limit(10, 0.9, distinct=True))
    assert only.copies == 1


def test_captions_are_grouped_by_their_text(grouped) -> None:
    snapshot, _, _ = grouped
    query = FakeEncoder().encode_texts(["a boat"])[0]
    found = found_by(scope(snapshot, Modality.TEXT), query, Limit(10, distinct=True))
    assert [(hit.caption, hit.copies) for hit in found] == [("a boat", 1), ("a tree", 0)]


def test_the_query_image_is_not_a_copy_if_it_is_left_out(grouped) -> None:
    snapshot, vectors, _ = grouped
    left_out = {key_of("picture 0")}
    found = found_by(scope(snapshot), vectors[0], Limit(1, distinct=True), left_out)
    assert found[0].id != "id/0"
    assert found[0].copies == 39  # of 41 rows: the hit itself and the one left out do not count


def test_the_threshold_is_that_of_duplicates(grouped) -> None:
    assert default_threshold(grouped[0].encoder) == 0.96


def test_the_command_and_python_show_how_many_were_left_out(grouped) -> None:
    snapshot, _, _ = grouped
    store = str(snapshot.layout.root)
    arguments = ["query", "--image", "id/0", "--to", "image", "--distinct", "-k", "3"]
    told = CliRunner().invoke(app, [*arguments, "--store", store, "--format", "json"])
    assert told.exit_code == 0, told.output
    hits = json.loads(told.stdout)["hits"]
    assert hits[0]["copies"] == 40
    with mmindex.open(store) as index:
        found = index.search(image="id/0", distinct=True, k=3)
        assert [hit.copies for hit in found] == [hit["copies"] for hit in hits]
        assert found.to_arrow()["copies"].to_pylist() == [hit.copies for hit in found]
        assert index.search(image="id/0")[0].copies is None
        with pytest.raises(TypeError):
            index.search(image="id/0", distinct="yes")
    table = CliRunner().invoke(app, [*arguments, "--store", store]).stdout
    assert table.splitlines()[1].split()[:3] == ["rank", "score", "copies"]
    tsv = CliRunner().invoke(app, [*arguments, "--store", store, "--format", "tsv"]).stdout
    header, first, *_ = (line.split("\t") for line in tsv.splitlines())
    assert dict(zip(header, first, strict=True))["copies"] == "40"


def test_a_page_shows_how_many_were_left_out(grouped, tmp_path: Path) -> None:
    snapshot, _, _ = grouped
    with mmindex.open(snapshot.layout.root) as index:
        index.search(image="id/0", distinct=True, k=2).to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "× 41" in page
    assert "40 near-duplicates not shown" in page
