"""Descriptions: the caption on which the nearest ones agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmindex.core.errors import NoInputError
from mmindex.insight.caption import describe
from mmindex.search.vectorize import Vectorizer
from mmindex.store.snapshot import open_snapshot
from support.images import write_pngs
from support.models import FakeEncoder, no_model
from support.stores import Side, captions_table, image_store, images_table, key_of, make_store


def unit(*values: float) -> list[float]:
    vector = np.array(values) / np.linalg.norm(values)
    return vector.tolist()


@pytest.fixture
def vectorizer(tmp_path: Path) -> Vectorizer:
    """An image vector points east; one caption is nearest, three similar ones are farther away."""
    texts = {
        "loner": unit(1.0, -0.3, 0.0),
        "agreed a": unit(1.0, 0.5, 0.0),
        "agreed b": unit(1.0, 0.52, 0.02),
        "agreed c": unit(1.0, 0.54, -0.02),
        "far": unit(-1.0, 0.0, 0.0),
    }
    images = images_table([("pic", key_of("pic"), "/p/pic.jpg"), ("x", key_of("x"), "/p/x.jpg")])
    captions = captions_table([("x", text) for text in texts] + [("pic", "agreed b")])
    sides = {
        "image": Side([key_of("pic"), key_of("x")], np.eye(3, dtype=np.float32)[:2]),
        "text": Side([key_of(text) for text in texts], np.array(list(texts.values()), np.float32)),
    }
    info = FakeEncoder().info
    make_store(tmp_path / "s", images, captions, sides, info)
    return Vectorizer(open_snapshot(tmp_path / "s"), no_model)


def said(vectorizer: Vectorizer, k: int, voters: int | None) -> list[str | None]:
    return [hit.caption for hit in describe(vectorizer, "pic", k, voters).captions]


def test_captions_that_agree_rank_above_a_single_nearer_one(vectorizer: Vectorizer) -> None:
    assert said(vectorizer, 1, None) == ["loner"]
    assert said(vectorizer, 2, None) == ["loner", "agreed a"]
    assert said(vectorizer, 1, 4)[0] in ("agreed a", "agreed b", "agreed c")
    assert said(vectorizer, 4, 4)[-1] == "loner"


def test_equal_texts_are_returned_once(vectorizer: Vectorizer) -> None:
    found = describe(vectorizer, "pic", 5, 5)
    assert sorted(hit.caption or "" for hit in found.captions) == [
        "agreed a",
        "agreed b",
        "agreed c",
        "far",
        "loner",
    ]
    assert [hit.rank for hit in found.captions] == [1, 2, 3, 4, 5]
    assert list(found.agreement) == sorted(found.agreement, reverse=True)
    assert found.captions[-1].caption == "far"
    assert found.captions[-1].score == pytest.approx(-1, abs=1e-3)


def test_more_captions_than_there_are_is_all_of_them(vectorizer: Vectorizer) -> None:
    assert len(said(vectorizer, 50, 50)) == 5


def test_one_caption_alone_is_the_description(tmp_path: Path) -> None:
    [path] = write_pngs(tmp_path / "p", 1)
    image_store(tmp_path / "s", {"a": path}, [("a", "a red square")], FakeEncoder())
    with Vectorizer(open_snapshot(tmp_path / "s"), FakeEncoder) as vectorizer:
        assert [h.caption for h in describe(vectorizer, "a").captions] == ["a red square"]


def test_a_corpus_without_captions_cannot_describe(tmp_path: Path) -> None:
    [path] = write_pngs(tmp_path / "p", 1)
    image_store(tmp_path / "s", {"a": path}, [], FakeEncoder())
    with pytest.raises(NoInputError, match="no captions"):
        describe(Vectorizer(open_snapshot(tmp_path / "s"), FakeEncoder), "a")
