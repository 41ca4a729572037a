"""Encoded items are reused unless they are damaged or from another model."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmindex.encode.stage import encode
from mmindex.encode.work import EncoderSource
from mmindex.models.encoder import Float32
from mmindex.models.preprocess import Pixels
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.store.versions import create_layout, publish_version
from support.encoding import IMAGE, TEXT, draft_after, run, settings, vectors
from support.images import write_pngs
from support.manifests import manifest
from support.models import FakeEncoder
from support.tables import write_corpus


def test_nothing_missing_means_that_the_model_is_not_loaded(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 6), ["one", "two"])
    first = run(fake_encoder, objects, corpus)

    def refuse() -> FakeEncoder:
        raise AssertionError("the model was loaded")

    source = EncoderSource(fake_encoder.info, lambda: fake_encoder.preprocess, refuse)
    draft = Snapshot(objects, draft_after(first))
    second = encode(source, draft, corpus.tables, settings())
    assert second.shards == first.shards
    assert (second.encoded_images, second.reused_images) == (0, 6)
    assert (second.encoded_texts, second.reused_texts) == (0, 2)
    assert second.bottleneck == ""


def test_only_what_was_added_is_encoded(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    paths = write_pngs(tmp_path / "pictures", 6)
    first = run(fake_encoder, objects, write_corpus(objects, paths[:4], ["one"]))
    again = FakeEncoder()
    second = run(again, objects, write_corpus(objects, paths, ["one", "two"]), first)
    assert again.image_batches == [2]
    assert again.text_batches == [1]
    assert (second.encoded_images, second.reused_images) == (2, 4)
    assert [ref.name[-1] for ref in second.shards[IMAGE]] == ["0", "1"]
    assert len(vectors(objects, second, IMAGE)) == 6


def test_a_shard_without_live_keys_is_left_out_and_its_number_not_reused(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    paths = write_pngs(tmp_path / "pictures", 5)
    config = settings(shard_rows=2)
    first = run(fake_encoder, objects, write_corpus(objects, paths[:4]), config=config)
    second = run(
        fake_encoder, objects, write_corpus(objects, [*paths[2:4], paths[4]]), first, config
    )
    names = [ref.name for ref in second.shards[IMAGE]]
    assert names == ["embeddings/image/00001", "embeddings/image/00002"]
    assert (second.reused_images, second.encoded_images) == (2, 1)


def test_another_model_encodes_everything_again(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 5), ["one"])
    first = run(fake_encoder, objects, corpus)
    other = FakeEncoder(seed=1)
    second = run(other, objects, corpus, first)
    assert (second.encoded_images, second.reused_images) == (5, 0)
    assert not {ref.sha256 for ref in first.shards[IMAGE]} & {
        ref.sha256 for ref in second.shards[IMAGE]
    }


def test_a_killed_runs_shards_are_reused_and_give_the_same_content(
    objects: Objects, tmp_path: Path
) -> None:
    """The result has the bytes of an uninterrupted run; at most one shard is repeated."""
    paths = write_pngs(tmp_path / "pictures", 20)
    corpus = write_corpus(objects, paths, ["one", "two", "three"])
    config = settings(shard_rows=5)

    class Interrupted(FakeEncoder):
        def encode_images(self, pixels: Pixels) -> Float32:
            if sum(self.image_batches) >= 13:
                raise KeyboardInterrupt
            return super().encode_images(pixels)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), objects, corpus, config=config)
    again = FakeEncoder()
    resumed = run(again, objects, corpus, config=config)
    assert resumed.adopted_shards == 2
    assert (resumed.reused_images, resumed.encoded_images) == (10, 10)
    assert sum(again.image_batches) == 10

    elsewhere = Objects(create_layout(tmp_path / "elsewhere"))
    whole = run(FakeEncoder(), elsewhere, write_corpus(elsewhere, paths, []), config=config)
    assert resumed.shards[IMAGE] == whole.shards[IMAGE]


def test_a_damaged_leftover_is_skipped(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 6))
    first = run(fake_encoder, objects, corpus, config=settings(shard_rows=3))
    damaged = objects.layout.object(first.shards[IMAGE][0].sha256)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    second = run(FakeEncoder(), Objects(objects.layout), corpus, config=settings(shard_rows=3))
    assert (second.reused_images, second.encoded_images) == (3, 3)


def test_a_damaged_published_shard_is_encoded_again(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 3))
    first = run(fake_encoder, objects, corpus)
    path = objects.layout.object(first.shards[IMAGE][0].sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    second = run(fake_encoder, Objects(objects.layout), corpus, first)
    assert (second.reused_images, second.encoded_images) == (0, 3)
    assert second.shards == first.shards  # the same content under the same name: repaired in place
    Objects(objects.layout).path(second.shards[IMAGE][0])


def test_objects_of_published_versions_are_not_leftovers(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    """Shards of an older version are not adopted; only shards that no version lists are."""
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 3))
    first = run(fake_encoder, objects, corpus)
    listed = manifest(encoder=first.encoder, objects=(*corpus.tables, *first.shards[IMAGE]))
    publish_version(objects, listed)
    second = run(FakeEncoder(), objects, corpus)
    assert second.adopted_shards == 0
    assert second.encoded_images == 3


def test_a_corpus_that_became_empty_keeps_no_shard(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    first = run(fake_encoder, objects, write_corpus(objects, write_pngs(tmp_path, 2), ["a"]))
    second = run(fake_encoder, objects, write_corpus(objects, []), first)
    assert second.shards == {IMAGE: (), TEXT: ()}
