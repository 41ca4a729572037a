"""The images that a list of captions names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmindex.adaptation import corpus as module
from mmindex.adaptation.corpus import listed, stored
from mmindex.core.errors import DataError, NoInputError
from mmindex.search.vectorize import Vectorizer
from mmindex.store.snapshot import Snapshot
from support.models import FakeEncoder
from support.stores import Side, captions_table, images_table, key_of, make_store

COUNT = 60


def store(root: Path, uris: list[str], captions: list[tuple[str, str]] = ()) -> Snapshot:
    rows = [(f"folder/p/{n:02d}.jpg", key_of(f"p{n}"), uri) for n, uri in enumerate(uris)]
    vectors = np.random.default_rng(0).normal(size=(len(rows), 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sides = {"image": Side([key for _, key, _ in rows], vectors)}
    table = captions_table(captions)
    if captions:
        keys = list(dict.fromkeys(table["key"].to_pylist()))
        texts = dict.fromkeys(text for _, text in captions)
        sides["text"] = Side(keys, FakeEncoder().encode_texts(list(texts)))
    return make_store(root, images_table(rows), table, sides, FakeEncoder().info)


def named(root: Path, uris: list[str], names: list[str]) -> module.Captioned:
    path = root.with_suffix(".csv")
    lines = [f'"{name}","caption {n}"' for n, name in enumerate(names)]
    path.write_text("\n".join(["image,caption", *lines]), encoding="utf-8", errors="surrogatepass")
    return listed(Vectorizer(store(root, uris), FakeEncoder), path, 0)


@pytest.mark.parametrize(
    "name",
    [
        "folder/p/{n:02d}.jpg",  # the id
        "/photos/trip/{n:02d}.jpg",  # the path
        "trip/{n:02d}.jpg",
        "{n:02d}.jpg",
        "{n:02d}.JPG",
        "./trip/{n:02d}.jpg",
        "trip\\{n:02d}.jpg",
    ],
)
def test_an_image_is_named_by_its_id_its_path_or_the_end_of_its_path(root: Path, name: str):
    uris = [f"/photos/trip/{n:02d}.jpg" for n in range(COUNT)]
    found = named(root, uris, [name.format(n=n) for n in range(COUNT)])
    assert (len(found.pairs), found.unknown) == (COUNT, 0)


def test_members_of_archives_and_paths_that_are_not_utf8_are_named_too(root: Path):
    uris = [f"/photos/a.zip!in/{n:02d}.jpg" for n in range(COUNT)]
    uris[0] = "file:///photos/%C3%A4%20b.jpg"
    names = ["ä b.jpg", *(f"in/{n:02d}.jpg" for n in range(1, COUNT))]
    assert named(root, uris, names).unknown == 0


def test_an_ambiguous_name_is_not_guessed(root: Path):
    uris = [f"/photos/{n // 2}/{n % 2}{n // 4 * 2}.jpg" for n in range(2 * COUNT)]
    uris = [f"/photos/{n}/same.jpg" if n < 3 else f"/photos/{n}.jpg" for n in range(COUNT + 3)]
    found = named(root, uris, ["same.jpg", *(f"{n}.jpg" for n in range(3, COUNT + 3))])
    assert (len(found.pairs), found.unknown) == (COUNT, 1)


def test_captions_of_an_image_are_consecutive_and_equal_ones_count_once(root: Path):
    uris = [f"/photos/{n:02d}.jpg" for n in range(COUNT)]
    path = root.with_suffix(".tsv")
    lines = [f"{n:02d}.jpg\t{text}" for n in range(COUNT) for text in ("red", "blue", "red", " ")]
    path.write_text("\n".join(["image\tcaption", *lines]))
    found = listed(Vectorizer(store(root, uris), FakeEncoder), path, 0)
    assert found.pairs.counts.tolist() == [2] * COUNT


def test_stored_captions_are_used_by_vector(root: Path):
    uris = [f"/photos/{n:02d}.jpg" for n in range(COUNT)]
    captions = [(f"folder/p/{n:02d}.jpg", text) for n in range(COUNT) for text in ("red", f"x{n}")]
    found = stored(store(root, uris, captions), 0)
    assert found.pairs.counts.tolist() == [2] * COUNT
    assert found.pairs.images.dtype == np.float16


def test_a_store_without_captions_names_the_option_to_pass(root: Path):
    with pytest.raises(NoInputError, match="no captions to adapt to"):
        stored(store(root, ["/photos/1.jpg"]), 0)


def test_a_large_corpus_is_sampled(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_IMAGES", 55)
    uris = [f"/photos/{n:02d}.jpg" for n in range(COUNT)]
    captions = [(f"folder/p/{n:02d}.jpg", f"{text} {n}") for n in range(COUNT) for text in "ab"]
    one, other = (stored(store(root / side, uris, captions), 7) for side in "xy")
    assert one.sampled
    assert (len(one.pairs), len(one.pairs.texts)) == (55, 110)
    assert np.array_equal(one.pairs.images, other.pairs.images)


def test_a_list_without_a_known_name_is_refused(root: Path):
    with pytest.raises(DataError, match="none of its 1 names is an image in this store"):
        named(root, ["/photos/1.jpg"], ["2.jpg"])
