"""BM25 equals the formula, and that of SQLite if both use the same frequencies."""

from __future__ import annotations

import math
import random
import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmindex.keywords.best import Matches
from mmindex.keywords.index import KeywordIndex
from mmindex.keywords.postings import Segment, SegmentBuilder, write_segment
from mmindex.keywords.summary import Summary, Weights
from mmindex.search.rank import fuse
from mmindex.store import versions
from mmindex.store.objects import Objects

WORDS = ["red", "bus", "cat", "house", "sea", "tree", "boat", "a", "the"]


def texts_of(count: int) -> list[str]:
    dice = random.Random(4)
    return [" ".join(dice.choices(WORDS, k=dice.randint(0, 12))) for _ in range(count)]


def index_of(folder: Path, texts: list[str], segment_ids: int) -> KeywordIndex:
    objects = Objects(versions.create_layout(folder / f"store{segment_ids}"))
    segments = []
    lengths = np.zeros(len(texts), dtype=np.uint32)
    for number, first in enumerate(range(0, len(texts), segment_ids)):
        builder = SegmentBuilder()
        for image in range(first, min(first + segment_ids, len(texts))):
            tally = Counter(texts[image].split())
            lengths[image] = tally.total()
            builder.add(image, tally)
        segments.append(Segment(objects, write_segment(objects, number, builder.table(), "")))
    return KeywordIndex(Summary("", Weights(), lengths), segments)


def by_formula(texts: list[str], query: list[str]) -> dict[int, float]:
    documents = [text.split() for text in texts]
    full = [one for one in documents if one]
    mean = sum(map(len, full)) / len(full)
    scores: dict[int, float] = {}
    for word in set(query):
        n = sum(word in one for one in documents)
        rarity = math.log(1 + (len(full) - n + 0.5) / (n + 0.5))
        for image, one in enumerate(documents):
            if f := one.count(word):
                share = f / (f + 1.2 * (0.25 + 0.75 * len(one) / mean))
                scores[image] = scores.get(image, 0.0) + rarity * share
    return scores


@pytest.mark.parametrize("segment_ids", [1_000, 64, 7])
@pytest.mark.parametrize(
    "query", [["bus"], ["red", "cat"], ["a", "zebra"], ["zebra"], [], WORDS, WORDS[:4]]
)
def test_scores_follow_the_formula_for_any_segments(tmp_path, segment_ids, query) -> None:
    texts = texts_of(200)
    index = index_of(tmp_path, texts, segment_ids)
    found = index.best(query, 200)
    expected = by_formula(texts, query)
    assert dict(zip(found.ids.tolist(), found.scores.tolist(), strict=True)) == pytest.approx(
        expected, rel=1e-5
    )
    complete = {image for image, text in enumerate(texts) if set(query) <= set(text.split())}
    assert set(found.ids[: found.complete].tolist()) == (complete if query else set())
    for part in (found.scores[: found.complete], found.scores[found.complete :]):
        assert (np.diff(part) <= 0).all()


@pytest.mark.parametrize("segment_ids", [10_000, 700])
def test_the_best_are_those_of_all(tmp_path, segment_ids) -> None:
    """Images that cannot be among the best are not scored; the result is the same."""
    dice = random.Random(6)
    words = [f"w{number}" for number in range(120)]
    texts = [
        " ".join(words[min(int(dice.expovariate(0.08)), 119)] for _ in range(dice.randint(0, 20)))
        for _ in range(3_000)
    ]
    index = index_of(tmp_path, texts, segment_ids)
    some = np.array(sorted(dice.sample(range(3_000), 900)))
    for _ in range(25):
        query = list(dict.fromkeys(dice.choices(words, k=dice.choice([1, 2, 5, 12, 30]))))
        for allowed in (None, some):
            every = index.best(query, 3_000, allowed)
            for k in (1, 10, 100, 1_000):
                found = index.best(query, k, allowed)
                assert found.ids.tolist() == every.ids[:k].tolist()
                assert found.scores.tolist() == every.scores[:k].tolist()
                assert found.complete == min(k, every.complete)


def test_the_order_is_that_of_sqlite(tmp_path) -> None:
    """SQLite has another inverse document frequency, so each word is compared separately."""
    texts = texts_of(300)
    index = index_of(tmp_path, texts, 1_000)
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE t USING fts5(text)")
    database.executemany(
        "INSERT INTO t(rowid, text) VALUES (?, ?)",
        [(image, text) for image, text in enumerate(texts) if text],
    )
    for word in WORDS:
        rows = database.execute("SELECT rowid, rank FROM t WHERE t MATCH ?", [f'"{word}"'])
        theirs = dict(rows.fetchall())
        found = index.best([word], 300)
        mine = dict(zip(found.ids.tolist(), found.scores.tolist(), strict=True))
        ratios = [theirs[image] / mine[image] for image in mine]
        assert mine.keys() == theirs.keys()
        assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-4)


def test_only_allowed_images_are_found(tmp_path) -> None:
    index, query = index_of(tmp_path, texts_of(200), 64), ["bus", "sea"]
    allowed = np.arange(0, 200, 3)
    kept = [image for image in index.best(query, 200).ids.tolist() if image % 3 == 0]
    assert index.best(query, 200, allowed).ids.tolist() == kept
    assert not len(index.best(query, 10, allowed[:0]).ids)


def test_the_score_of_other_words_is_that_of_an_image_with_them(tmp_path) -> None:
    texts = texts_of(50)
    index, query = index_of(tmp_path, texts, 1_000), ["red", "sea", "zebra"]
    found = index.best(query, 50)
    scores = dict(zip(found.ids.tolist(), found.scores.tolist(), strict=True))
    rarities = index.rarities(query)
    assert rarities.keys() == {"red", "sea"}
    for image, text in enumerate(texts):
        score = index.score_of(Counter(text.split()), rarities)
        assert score == pytest.approx(scores.get(image, 0.0), rel=1e-5)


def test_ranks_are_fused_by_weight() -> None:
    near = np.array([5, 6, 7])
    matches = Matches(np.array([8, 7, 9]), np.array([3, 2, 1], np.float32), complete=1)
    assert fuse(near, matches, Weights(0, 0)).tolist() == [5, 6, 7]
    assert fuse(near, matches, Weights(0, 1)).tolist() == [5, 8, 6, 7]
    assert fuse(near, matches, Weights(1, 1)).tolist() == [7, 5, 8, 6, 9]
    assert fuse(near, matches, Weights(0, 2)).tolist() == [8, 5, 6, 7]
    assert fuse(near[:0], matches, Weights(0.5, 1)).tolist() == [8, 7, 9]
    assert fuse(near, Matches(near[:0], np.zeros(0, np.float32), 0), Weights()).tolist() == [
        5,
        6,
        7,
    ]
