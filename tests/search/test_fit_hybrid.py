"""The weights of a hybrid search: words count only if captions that are left out show a gain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmindex
from mmindex.keywords.documents import Document, Documents
from mmindex.keywords.index import open_keywords
from mmindex.keywords.summary import Weights
from mmindex.search.fit_hybrid import _CANDIDATES, _choose, _held_out, _without, fit_weights
from mmindex.store.snapshot import Snapshot, open_snapshot

CAPTIONS = {
    "a.png": ["a zebra", "the zebra runs"],
    "b.png": ["an okapi"],
    "c.png": ["a lonely lemur", "a lonely lemur"],
    "d.png": [],
}


def store(folder: Path, captions: dict[str, list[str]]) -> Snapshot:
    photos = folder / "photos"
    photos.mkdir()
    for number, name in enumerate(captions):
        Image.new("RGB", (64, 48), (60 * number, 90, 160)).save(photos / name)
    lines = [{"file_name": name, "text": text} for name in captions for text in captions[name]]
    (photos / "captions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    mmindex.build(folder / "store", sources=[f"folder:{photos}"], model="embedded", workers=0)
    return open_snapshot(folder / "store")


def test_the_caption_of_a_query_is_left_out_of_its_image(tmp_path: Path) -> None:
    snapshot = store(tmp_path, CAPTIONS)
    documents = Documents(snapshot)
    found = {
        query.text: [documents.among(np.array([image]))[image].about[0] for image in matches.ids]
        for query, matches in _held_out(snapshot, open_keywords(snapshot), documents, 0)
    }
    assert found == {
        "a zebra": ["a.png", "c.png"],  # its other caption has "zebra", another image has "a"
        "the zebra runs": ["a.png"],
        "an okapi": [],
        "a lonely lemur": ["a.png"],
    }
    assert fit_weights(snapshot, open_keywords(snapshot), documents, 0).queries == 4


def test_without_captions_only_images_with_all_words_count(tmp_path: Path) -> None:
    snapshot = store(tmp_path, {"a.png": [], "b.png": []})
    keywords = open_keywords(snapshot)
    assert keywords.weights == Weights(0.0, 1.0, 0)
    assert fit_weights(snapshot, keywords, Documents(snapshot), 0) == keywords.weights


def test_names_that_repeat_the_caption_are_left_out_too() -> None:
    document = Document(["two-red-boats.png", "IMG_0042.png"], ["two red boats", "a harbour"])
    assert _without(document, "two red boats").keys() == {"img", "0042", "png", "a", "harbour"}


def found(queries: int, **gained: float) -> np.ndarray:
    """What each candidate finds: half of the queries, and more or fewer for some candidates."""
    hits = np.zeros((queries, len(_CANDIDATES), 2))
    hits[: queries // 2] = 1
    for name, gain in gained.items():
        place = int(name.removeprefix("c"))
        hits[:, place] = 0
        hits[: round(queries * (0.5 + gain)), place] = 1
    return hits


@pytest.mark.parametrize(
    ("gained", "expected"),
    [
        ({}, Weights(0.0, 1.0, 1000)),  # words do not harm: all words of a query count
        ({"c1": -0.1}, Weights(0.0, 0.0, 1000)),  # they harm
        ({"c5": 0.1}, Weights(_CANDIDATES[5].partial, 1.0, 1000)),
        ({"c4": 0.05, "c6": 0.1}, Weights(_CANDIDATES[6].partial, 1.0, 1000)),
        ({"c5": 0.001}, Weights(0.0, 1.0, 1000)),  # a gain that can be chance
        ({f"c{n}": -0.2 for n in range(1, len(_CANDIDATES))}, Weights(0.0, 0.0, 1000)),
    ],
)
def test_weights_are_chosen_by_their_gain(gained: dict[str, float], expected: Weights) -> None:
    assert _choose(found(1000, **gained)) == expected


def test_a_gain_at_one_cut_off_and_a_loss_at_another_is_none() -> None:
    hits = found(1000, c5=0.2)
    hits[:, 5, 1] = 0
    assert _choose(hits) == Weights(0.0, 1.0, 1000)
