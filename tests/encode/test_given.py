"""Stores of vectors from files: nothing is encoded, and models are never mixed."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest

import mmindex
from mmindex.core.config import Config
from mmindex.core.errors import DataError, ModelMismatchError, NoInputError, UsageError
from mmindex.core.model_names import UNKNOWN
from mmindex.encode.given import GivenFiles
from mmindex.runs.run import run
from mmindex.runs.settings import settings
from mmindex.store.layout import Layout
from mmindex.store.versions import read_current
from mmindex.upkeep.check import check
from mmindex.upkeep.forget import forget
from mmindex.upkeep.rollback import rollback
from support.corpora import write_files
from support.fakestore import fake_model
from support.images import png
from support.models import FakeEncoder
from support.vectors import random_units, write_clip_retrieval, write_npy


def build(tmp_path: Path, *sources: Path | str, **settings: object) -> Path:
    specs = [one if isinstance(one, str) else f"embeddings:{one}" for one in sources]
    mmindex.build(tmp_path / "store", specs, workers=0, **settings)
    return tmp_path / "store"


def with_model(tmp_path: Path, encoder: FakeEncoder, *sources: Path | str) -> Path:
    with fake_model(encoder):
        return build(tmp_path, *sources)


def vectors_of(store: Path, side: str = "image") -> dict[str, np.ndarray]:
    with mmindex.open(store) as index:
        ids, vectors = index.vectors(side)
    return dict(zip(ids, vectors, strict=True))


def intact(store: Path) -> bool:
    return not check(store, full=True).problems


def test_vectors_are_found_again_bit_for_bit(tmp_path: Path) -> None:
    store = build(tmp_path, write_clip_retrieval(tmp_path / "a", rows=5, files=2))
    known = vectors_of(store)
    expected = np.concatenate([random_units(5, seed=n).astype(np.float16) for n in range(2)])
    for number, row in enumerate(expected):
        np.testing.assert_array_equal(known[f"embeddings/a/{number:09d}"], row)
    with mmindex.open(store) as index:
        for number, row in enumerate(expected):
            [best] = index.search(vector=row, k=1)
            assert best.id == f"embeddings/a/{number:09d}"
            assert best.uri == f"https://example.org/{number}.jpg"
        [said] = index.search(
            vector=random_units(5, seed=1000)[3].astype(np.float16), to="text", k=1
        )
        assert said.caption == "caption 3"
        [one] = index.search(
            vector=expected[0], where="width = 103 and image_id < 'embeddings/a/000000005'"
        )
        assert one.id == "embeddings/a/000000003"
    assert intact(store)


def test_an_unknown_model_answers_vectors_and_known_images_but_no_texts(tmp_path: Path) -> None:
    store = build(tmp_path, write_clip_retrieval(tmp_path / "a", rows=4))
    with mmindex.open(store) as index:
        assert index.model == UNKNOWN
        [itself, _] = index.search(image="embeddings/a/000000002", to="image", k=2)
        assert itself.id == "embeddings/a/000000002"
        for query in (
            {"text": "a boat"},
            {"image": write_files(tmp_path, {"p.png": png(1)}) / "p.png"},
        ):
            with pytest.raises(NoInputError) as caught:
                index.search(**query)
            assert caught.value.exit_code == 66
            assert "--model" in caught.value.hint
        with pytest.raises(NoInputError):
            index.embed(texts=["a boat"])
        assert index.evaluate().images == 4


def test_a_named_model_encodes_texts_and_new_images_but_not_what_has_a_vector(
    tmp_path: Path,
) -> None:
    folder = write_clip_retrieval(tmp_path / "a", rows=4)
    photos = write_files(tmp_path / "photos", {"p.png": png(1), "q.png": png(2)})
    encoder = FakeEncoder()
    store = with_model(tmp_path, encoder, folder)
    assert (encoder.image_batches, encoder.text_batches) == ([], [])
    with_model(tmp_path, encoder, folder, f"folder:{photos}")
    assert (encoder.image_batches, encoder.text_batches) == ([2], [])
    assert len(vectors_of(store)) == 6
    assert intact(store)


def test_an_unknown_model_is_named_later_and_nothing_changes(tmp_path: Path) -> None:
    folder = write_clip_retrieval(tmp_path / "a", rows=4)
    store = build(tmp_path, folder)
    before = vectors_of(store)
    with_model(tmp_path, FakeEncoder(), folder)
    assert read_current(Layout(store)).encoder.model == FakeEncoder().info.model
    for name, vector in vectors_of(store).items():
        np.testing.assert_array_equal(vector, before[name])


def test_vectors_of_one_model_are_not_taken_as_those_of_another(tmp_path: Path) -> None:
    folder = write_clip_retrieval(tmp_path / "a", rows=4)
    store = with_model(tmp_path, FakeEncoder(), folder)
    with pytest.raises(ModelMismatchError, match="as vectors of"):
        with_model(tmp_path, FakeEncoder(seed=1), folder)
    assert read_current(Layout(store)).version == 1
    write_clip_retrieval(folder, rows=4, seed=7)  # vectors of the other model
    with_model(tmp_path, FakeEncoder(seed=1), folder)
    assert read_current(Layout(store)).version == 2


def test_other_dimensions_than_the_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelMismatchError, match="16 dimensions") as caught:
        with_model(tmp_path, FakeEncoder(dim=8), write_clip_retrieval(tmp_path / "a"))
    assert caught.value.exit_code == 78


def test_images_beside_vectors_of_an_unknown_model_are_refused(tmp_path: Path) -> None:
    photos = write_files(tmp_path / "photos", {"p.png": png(1)})
    with pytest.raises(UsageError, match="not named"):
        build(tmp_path, write_clip_retrieval(tmp_path / "a"), f"folder:{photos}")


def test_an_export_says_which_model_made_its_vectors(tmp_path: Path) -> None:
    store = with_model(tmp_path, FakeEncoder(), write_clip_retrieval(tmp_path / "a", rows=4))
    with mmindex.open(store) as index:
        index.export(tmp_path / "out")
    with pytest.raises(ModelMismatchError, match="another model"), fake_model(FakeEncoder(seed=1)):
        mmindex.build(tmp_path / "other", [f"embeddings:{tmp_path / 'out'}"], workers=0)


@pytest.mark.parametrize("layout", ["parquet", "clip-retrieval", "hf"])
def test_what_was_exported_comes_back_with_the_same_answers(tmp_path: Path, layout: str) -> None:
    words = ["red", "green", "blue", "white"]
    texts = "\n".join(
        f'{{"file": "{n}.png", "caption": "a {w} thing"}}' for n, w in enumerate(words)
    )
    photos = write_files(
        tmp_path / "photos",
        {"captions.jsonl": texts, **{f"{n}.png": png(n) for n in range(4)}},
    )
    encoder = FakeEncoder()
    with fake_model(encoder):
        mmindex.build(tmp_path / "first", [photos], workers=0)
        with mmindex.open(tmp_path / "first") as index:
            index.export(tmp_path / "out", layout=layout)
            questions = encoder.encode_texts([f"a {word} square" for word in words])
            answers = [list(index.search(vector=one, k=4)) for one in questions]
        store = build(tmp_path, tmp_path / "out")
    with mmindex.open(store) as index:
        for vector, expected in zip(questions, answers, strict=True):
            found = list(index.search(vector=vector, k=4))
            assert [hit.score for hit in found] == [hit.score for hit in expected]
            assert [hit.id.removeprefix("embeddings/out/") for hit in found] == [
                hit.id for hit in expected
            ]
    if layout != "hf":  # its captions have no vectors
        first, second = vectors_of(tmp_path / "first", "text"), vectors_of(store, "text")
        assert {f"embeddings/out/{name}" for name in first} == second.keys()
        for name, vector in first.items():
            np.testing.assert_array_equal(second[f"embeddings/out/{name}"], vector)


def test_a_store_of_vectors_is_extended_rolled_back_and_forgotten_from(tmp_path: Path) -> None:
    folder = write_clip_retrieval(tmp_path / "a", rows=6)
    store = build(tmp_path, folder)
    write_clip_retrieval(folder, rows=6, files=2)
    build(tmp_path, folder)
    assert len(vectors_of(store)) == 12
    rollback(store, None, uuid.uuid4().hex)
    assert len(vectors_of(store)) == 6
    assert intact(store)
    build(tmp_path, folder)
    forget(store, ["embeddings/a/000000003"], uuid.uuid4().hex)
    assert len(vectors_of(store)) == len(vectors_of(store, "text")) == 11
    build(tmp_path, folder)  # its vector is still in the file
    assert "embeddings/a/000000003" not in vectors_of(store)
    assert intact(store)


def test_unchanged_files_publish_nothing_and_a_changed_vector_is_one_new_image(
    tmp_path: Path,
) -> None:
    folder = write_clip_retrieval(tmp_path / "a", rows=6)
    store = build(tmp_path, folder)
    build(tmp_path, folder)
    assert read_current(Layout(store)).version == 1
    vectors = random_units(6).astype(np.float16)
    vectors[2] = random_units(1, seed=5)[0]
    write_npy(folder / "img_emb" / "img_emb_0.npy", vectors)
    build(tmp_path, folder)
    np.testing.assert_array_equal(vectors_of(store)["embeddings/a/000000002"], vectors[2])
    shards = read_current(Layout(store)).named("embeddings/image/")
    assert [ref.rows for ref in shards] == [6, 1]


def test_files_that_changed_after_the_crawl_are_an_error(tmp_path: Path) -> None:
    folder = write_clip_retrieval(tmp_path / "a", rows=4)
    store = tmp_path / "store"
    specs = [f"embeddings:{folder}"]
    run(store, settings(store, None, {"source": specs}), "r1", ["crawl"])
    write_npy(folder / "img_emb" / "img_emb_0.npy", random_units(4, seed=99))
    with pytest.raises(DataError, match="have no vector in the files"):
        run(store, settings(store, None, {}), "r2", ["encode"])


def test_two_rows_with_one_vector_are_two_images_with_one_vector(tmp_path: Path) -> None:
    vectors = random_units(4)
    vectors[3] = vectors[0]
    store = build(tmp_path, write_npy(tmp_path / "v.npy", vectors))
    with mmindex.open(store) as index:
        found = index.search(vector=vectors[0], k=2)
        assert [hit.id for hit in found] == ["embeddings/v/v/0", "embeddings/v/v/3"]
    assert read_current(Layout(store)).counts.unique_images == 3


def test_without_sources_of_vectors_there_are_no_files() -> None:
    assert GivenFiles.of(Config(), FakeEncoder().info) == GivenFiles()
