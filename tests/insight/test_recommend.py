"""Recommendations: histories of every kind, interests, dislikes, and what is left out."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
from typer.testing import CliRunner

import mmindex
from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.insight.history import Event, given_events, read_history, weigh
from mmindex.insight.recommend import interest_centres
from mmindex_cli.app import app
from support.models import FakeEncoder
from support.stores import Side, captions_table, images_table, key_of, make_store

DAY = 86_400
NOW = 1_700_000_000.0
GROUPS = 4
SIZE = 30


def unit_vectors() -> np.ndarray:
    """``SIZE`` vectors around each of ``GROUPS`` directions, none close to another."""
    rng = np.random.default_rng(0)
    dim = FakeEncoder().info.dim
    centres = np.eye(dim)[:GROUPS]
    rows = np.repeat(centres, SIZE, axis=0) + rng.normal(
        0, 0.8 / math.sqrt(dim), (SIZE * GROUPS, dim)
    )
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def name(group: int, number: int) -> str:
    return f"g{group}/{number:02d}"


def group(hit: mmindex.Hit) -> int:
    return int(hit.id[1])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = [name(g, n) for g in range(GROUPS) for n in range(SIZE)]
    rows = [(one, key_of(one), f"/photos/{one}.jpg") for one in names]
    images = images_table([*rows, ("twin", rows[0][1], "/photos/twin.jpg")])
    side = Side([key for _, key, _ in rows], unit_vectors())
    make_store(tmp_path / "store", images, captions_table([]), {"image": side}, FakeEncoder().info)
    monkeypatch.setenv("MMINDEX_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


@pytest.fixture
def index(store: Path) -> Any:
    with mmindex.open(store) as opened:
        yield opened


def run(*arguments: str) -> click.testing.Result:
    return CliRunner().invoke(app, ["recommend", *arguments])


def test_answers_resemble_the_likes_and_leave_out_what_was_seen(index: mmindex.Index) -> None:
    liked = [name(1, n) for n in range(5)]
    found = index.recommend(liked)
    assert len(found) == 10
    assert {group(hit) for hit in found} == {1}
    assert not {hit.id for hit in found} & set(liked)
    assert (found.used.likes, found.used.dislikes, found.used.unknown) == (5, 0, 0)
    assert [hit.rank for hit in found] == list(range(1, 11))


def test_each_interest_gets_answers_in_proportion(index: mmindex.Index) -> None:
    liked = [name(0, n) for n in range(1, 9)] + [name(2, n) for n in range(2)]
    groups = [group(hit) for hit in index.recommend(liked, interests=2)]
    assert groups.count(0) == 8
    assert groups.count(2) == 2


def test_names_of_the_same_content_are_one_image(index: mmindex.Index) -> None:
    found = index.recommend(["twin", "/photos/g0/00.jpg", name(0, 1)], k=1000)
    assert found.used.likes == 2
    assert not {"twin", name(0, 0), name(0, 1)} & {hit.id for hit in found}
    assert len({hit.id for hit in found}) == len(found)


def test_dislikes_move_the_answers_away_and_are_left_out(index: mmindex.Index) -> None:
    history = [{"id": name(0, 1)}, {"id": name(3, 0), "weight": -1}]
    found = index.recommend(history, k=200)
    assert name(3, 0) not in {hit.id for hit in found}
    plain = index.recommend(history[:1], k=200)
    scores = {hit.id: hit.score for hit in plain}
    away = [hit.score - scores[hit.id] for hit in found if group(hit) == 3]
    assert max(away) < 0


def test_an_image_liked_and_disliked_equally_counts_as_seen_only(index: mmindex.Index) -> None:
    found = index.recommend([(Event(name(1, 0))), Event(name(1, 0), -1), Event(name(2, 0))])
    assert (found.used.likes, found.used.dislikes) == (1, 0)
    assert name(1, 0) not in {hit.id for hit in found}


def test_recent_likes_count_more(index: mmindex.Index) -> None:
    old = [{"id": name(0, n), "time": NOW - 300 * DAY} for n in range(1, 9)]
    new = [{"id": name(1, 0), "time": datetime.fromtimestamp(NOW, UTC)}]
    assert {group(hit) for hit in index.recommend(old + new, interests=2)} == {1}
    assert {group(hit) for hit in index.recommend(old + new, interests=2, half_life=1e9)} == {0, 1}


def test_times_in_the_future_count_as_now() -> None:
    events = [Event("a", 1.0, NOW + 1e9), Event("b", 1.0, NOW), Event("c", 2.0, NOW - 30 * DAY)]
    found = weigh(events, NOW, 30)
    assert found.future == 1
    assert found.weights == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.5})
    ancient = weigh([Event("a", 1e308, -1e17), Event("b", 1e-300, NOW)], NOW, 1e-3)
    assert all(map(math.isfinite, ancient.weights.values()))


def test_a_condition_and_a_small_corpus_limit_the_answers(index: mmindex.Index) -> None:
    found = index.recommend([name(1, 0)], k=500, where="image_id like 'g2/%'")
    assert {group(hit) for hit in found} == {2}
    assert len(found) == SIZE
    assert len(index.recommend([name(1, 0)], where="image_id = 'g1/00'")) == 0


def test_diversity_lowers_the_similarity_of_answers(index: mmindex.Index) -> None:
    def alike(diversity: float) -> float:
        hits = index.recommend([name(1, n) for n in range(3)], diversity=diversity)
        vectors = index.embed(images=[hit.id for hit in hits])
        return float((vectors @ vectors.T).mean())

    assert alike(0.9) < alike(0.0)


def test_every_form_of_a_file_gives_the_same_events(tmp_path: Path) -> None:
    expected = (Event("a,b", 1.0, 0.0), Event("c", -0.5, 3600.0))
    (tmp_path / "h.csv").write_text('id,weight,time\n"a,b",,0\nc,-0.5,1970-01-01T01:00:00Z\n')
    (tmp_path / "h.tsv").write_text("time\tweight\tid\n0\t1\ta,b\n3600\t-0.5\tc\n")
    lines = [{"id": "a,b", "time": 0}, {"id": "c", "weight": -0.5, "time": "1970-01-01T01:00"}]
    (tmp_path / "h.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for suffix in ("csv", "tsv", "jsonl"):
        assert read_history(tmp_path / f"h.{suffix}") == expected
    (tmp_path / "h.txt").write_text("\ufeffa,b\r\n\n c \n", encoding="utf-8")
    assert read_history(tmp_path / "h.txt") == (Event("a,b"), Event("c"))
    assert given_events(lines) == expected


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "contains no images"),
        ("id,weight\n", "contains no images"),
        ("id,weight\na,nan\n", ":2: the weight 'nan'"),
        ("id,weight\na,inf\n", "not a finite number"),
        ("id,weight\na,much\n", "the weight 'much'"),
        ("id,time\na,yesterday\n", "is not a time"),
        ("id,time\na,1e999\n", "is not a time"),
        ("id,time\na,2026-01-01\nb,\n", "1 of 2 entries have no time"),
        ("id,weight\n,1\n", ":2: no id"),
        ("name\na\n", "lacks id or image"),
    ],
)
def test_a_bad_history_is_refused_with_its_line(content: str, said: str) -> None:
    Path("bad.csv").write_text(content)
    done = run("--history", "bad.csv")
    assert (done.exit_code, said in done.stderr) == (65, True), done.stderr


@pytest.mark.usefixtures("store")
def test_bad_json_is_refused() -> None:
    for line in ('{"id": "a", "weight": true}', '{"id": "a", "weight": [1]}', '{"id": 3}', "["):
        Path("bad.jsonl").write_text(line + "\n")
        assert run("--history", "bad.jsonl").exit_code == 65, line
    Path("nan.jsonl").write_text('{"id": "a", "weight": NaN}\n')
    assert run("--history", "nan.jsonl").exit_code == 65


def test_unknown_images_are_counted_and_refused_if_there_are_no_others(
    index: mmindex.Index,
) -> None:
    found = index.recommend([name(0, 1), "gone", "also gone"])
    assert found.used.unknown == 2
    with pytest.raises(NoInputError, match="none of the 2 images"):
        index.recommend(["gone", "also gone"])


def test_dislikes_alone_are_refused(index: mmindex.Index) -> None:
    with pytest.raises(DataError, match="no likes: 1 of its images"):
        index.recommend([Event(name(0, 1), -1.0), Event(name(0, 2), 0.0)])


def test_arguments_are_checked(index: mmindex.Index) -> None:
    liked = [name(0, 1)]
    for wrong in ({"half_life": 0}, {"half_life": math.nan}, {"diversity": 1.5}, {"k": 0},
                  {"interests": 0}, {"interests": 101}):  # fmt: skip
        with pytest.raises(UsageError):
            index.recommend(liked, **wrong)
    with pytest.raises(TypeError):
        index.recommend([3])
    with pytest.raises(TypeError):
        index.recommend(3)  # type: ignore[arg-type]
    with pytest.raises(NoInputError):
        index.recommend("missing.csv")


@pytest.mark.usefixtures("store")
def test_the_command_prints_every_format() -> None:
    Path("h.csv").write_text(f"id,weight\n{name(1, 0)},1\n{name(2, 0)},-1\ngone,1\n")
    done = run("--history", "h.csv", "-k", "3", "--format", "json", "--html", "page.html")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["history"] == {"likes": 1, "dislikes": 1, "unknown": 1, "future": 0}
    assert record["fingerprint"] == FakeEncoder().info.fingerprint
    assert len(record["hits"]) == 3
    assert {hit["id"][:2] for hit in record["hits"]} == {"g1"}
    assert "1 likes and 1 dislikes" in Path("page.html").read_text(encoding="utf-8")
    assert run("--history", "h.csv").stdout.startswith("images for 1 likes and 1 dislikes")
    assert len(run("--history", "h.csv", "-k", "3", "--format", "tsv").stdout.splitlines()) == 4
    assert run("--history", "h.csv", "-k", "1", "-0").stdout.endswith(".jpg\0")
    assert run("--history", "missing.csv").exit_code == 66


def test_interests_are_found_and_never_empty() -> None:
    rows = unit_vectors().astype(np.float64)
    centres, shares = interest_centres(rows, np.ones(len(rows)), 4)
    assert shares == pytest.approx([0.25] * 4)
    assert (centres @ np.eye(rows.shape[1])[:GROUPS].T).argmax(axis=1).tolist() != [0] * 4
    same = np.repeat(rows[:1], 5, axis=0)
    centres, shares = interest_centres(same, np.ones(5), 3)
    assert (len(centres), shares.tolist()) == (1, [1.0])
