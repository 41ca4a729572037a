"""The stage: what is encoded, what is reused, what fails, and what a killed run leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mmindex.config import Config
from mmindex.encode.encode import EncodeReport, encode
from mmindex.encode.encoder import Float32
from mmindex.encode.preprocess import Pixels
from mmindex.encode.work import EncoderSource
from mmindex.errors import InternalError
from mmindex.records import Modality, Reason
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from mmindex.store.versions import create_layout, publish_version
from support.manifests import manifest
from support.models import FakeEncoder
from support.pictures import png, write_pictures
from support.tables import Corpus, image_key, text_key, write_corpus

IMAGE, TEXT = Modality.IMAGE, Modality.TEXT


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(create_layout(tmp_path / "store"))


def settings(**encode: object) -> Config:
    return Config.model_validate({"encode": {"workers": 0, "batch_size": 4, **encode}})


def source_of(encoder: FakeEncoder) -> EncoderSource:
    return EncoderSource(encoder.info, lambda: encoder.preprocess, lambda: encoder)


def run(
    encoder: FakeEncoder,
    objects: Objects,
    corpus: Corpus,
    parent: EncodeReport | None = None,
    config: Config | None = None,
) -> EncodeReport:
    draft = manifest() if parent is None else draft_after(parent)
    return encode(source_of(encoder), objects, corpus.tables, draft, config or settings())


def draft_after(parent: EncodeReport) -> Manifest:
    shards = tuple(ref for side in Modality for ref in parent.shards[side])
    return manifest(encoder=parent.encoder, objects=shards)


def vectors(objects: Objects, report: EncodeReport, side: Modality) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for ref in report.shards[side]:
        table = objects.read_table(ref)
        assert table.num_rows == ref.rows
        flat = table["vector"].combine_chunks().flatten().to_numpy()
        matrix = flat.reshape(table.num_rows, -1)
        assert matrix.dtype == np.float16
        found.update(zip(table["key"].to_pylist(), matrix, strict=True))
    return found


def test_every_key_gets_one_unit_vector(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    paths = write_pictures(tmp_path / "pictures", 11)
    texts = [f"caption {number}" for number in range(23)]
    corpus = write_corpus(objects, paths, texts)
    report = run(fake_encoder, objects, corpus, config=settings(shard_rows=5))
    images = vectors(objects, report, IMAGE)
    assert sorted(images) == sorted(image_key(path.read_bytes()) for path in paths)
    assert sorted(vectors(objects, report, TEXT)) == sorted(map(text_key, texts))
    lengths = np.linalg.norm(np.array(list(images.values()), np.float32), axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=2e-3)
    assert (report.encoded_images, report.encoded_texts) == (11, 23)
    assert [ref.name for ref in report.shards[IMAGE]] == [
        "embeddings/image/00000",
        "embeddings/image/00001",
        "embeddings/image/00002",
    ]
    assert fake_encoder.image_batches == [4, 1, 4, 1, 1]
    assert report.bottleneck in {"decode", "model", "write"}
    assert report.images_per_second > 0
    assert fake_encoder.closed == 1


def test_the_same_bytes_under_two_names_are_encoded_once(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    paths = write_pictures(tmp_path / "pictures", 3)
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[0].read_bytes())
    corpus = write_corpus(objects, [*paths, copy, paths[1]], ["a", "b", "a", "a"])
    report = run(fake_encoder, objects, corpus)
    assert (report.encoded_images, report.encoded_texts) == (3, 2)


def test_nothing_missing_means_that_the_model_is_not_loaded(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    corpus = write_corpus(objects, write_pictures(tmp_path / "pictures", 6), ["one", "two"])
    first = run(fake_encoder, objects, corpus)

    def refuse() -> FakeEncoder:
        raise AssertionError("the model was loaded")

    source = EncoderSource(fake_encoder.info, lambda: fake_encoder.preprocess, refuse)
    second = encode(source, objects, corpus.tables, draft_after(first), settings())
    assert second.shards == first.shards
    assert (second.encoded_images, second.reused_images) == (0, 6)
    assert (second.encoded_texts, second.reused_texts) == (0, 2)
    assert second.bottleneck == ""


def test_only_what_was_added_is_encoded(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    paths = write_pictures(tmp_path / "pictures", 6)
    first = run(fake_encoder, objects, write_corpus(objects, paths[:4], ["one"]))
    again = FakeEncoder()
    second = run(again, objects, write_corpus(objects, paths, ["one", "two"]), first)
    assert again.image_batches == [2]
    assert again.text_batches == [1]
    assert (second.encoded_images, second.reused_images) == (2, 4)
    assert [ref.name[-1] for ref in second.shards[IMAGE]] == ["0", "1"]
    assert len(vectors(objects, second, IMAGE)) == 6


def test_a_shard_without_a_live_key_is_left_out_and_its_number_not_given_again(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    paths = write_pictures(tmp_path / "pictures", 5)
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
    corpus = write_corpus(objects, write_pictures(tmp_path / "pictures", 5), ["one"])
    first = run(fake_encoder, objects, corpus)
    other = FakeEncoder(seed=1)
    second = run(other, objects, corpus, first)
    assert (second.encoded_images, second.reused_images) == (5, 0)
    assert not {ref.sha256 for ref in first.shards[IMAGE]} & {
        ref.sha256 for ref in second.shards[IMAGE]
    }


def test_a_killed_runs_shards_are_taken_up_and_give_the_same_content(
    objects: Objects, tmp_path: Path
) -> None:
    """What an uninterrupted run publishes, byte for byte, with at most the open shard redone."""
    paths = write_pictures(tmp_path / "pictures", 20)
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


def test_a_damaged_leftover_is_passed_over(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    corpus = write_corpus(objects, write_pictures(tmp_path / "pictures", 6))
    first = run(fake_encoder, objects, corpus, config=settings(shard_rows=3))
    damaged = objects.layout.object(first.shards[IMAGE][0].sha256)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    second = run(FakeEncoder(), Objects(objects.layout), corpus, config=settings(shard_rows=3))
    assert (second.reused_images, second.encoded_images) == (3, 3)


def test_a_damaged_published_shard_is_never_used_but_made_again(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    corpus = write_corpus(objects, write_pictures(tmp_path / "pictures", 3))
    first = run(fake_encoder, objects, corpus)
    path = objects.layout.object(first.shards[IMAGE][0].sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    second = run(fake_encoder, Objects(objects.layout), corpus, first)
    assert (second.reused_images, second.encoded_images) == (0, 3)
    assert second.shards == first.shards  # the same content under the same name: healed in place
    Objects(objects.layout).path(second.shards[IMAGE][0])


def test_objects_of_published_versions_are_no_leftovers(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    """An older version's shards stay that version's: adoption is for what no version lists."""
    corpus = write_corpus(objects, write_pictures(tmp_path / "pictures", 3))
    first = run(fake_encoder, objects, corpus)
    listed = manifest(encoder=first.encoder, objects=(*corpus.tables, *first.shards[IMAGE]))
    publish_version(objects, listed)
    second = run(FakeEncoder(), objects, corpus)
    assert second.adopted_shards == 0
    assert second.encoded_images == 3


def test_a_bad_picture_fails_alone_and_is_not_tried_again(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    paths = write_pictures(tmp_path / "pictures", 5)
    paths[2].write_bytes(png(2)[:60])
    key = image_key(paths[2].read_bytes())
    corpus = write_corpus(objects, paths)
    first = run(fake_encoder, objects, corpus)
    assert list(first.failed) == [key]
    assert first.failed[key].reason in {Reason.TRUNCATED, Reason.CORRUPT}
    assert first.encoded_images == 4
    again = FakeEncoder()
    second = run(again, objects, corpus, first)
    assert again.image_batches == []
    assert second.failed == first.failed
    assert second.shards == first.shards


def test_a_unit_in_which_everything_fails_is_remembered_too(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    paths = write_pictures(tmp_path / "pictures", 4)
    for path in paths[:2]:
        path.write_bytes(path.read_bytes()[:50])
    corpus = write_corpus(objects, paths)
    first = run(fake_encoder, objects, corpus, config=settings(shard_rows=2))
    assert [ref.rows for ref in first.shards[IMAGE]] == [0, 2]
    second = run(FakeEncoder(), objects, corpus, first)
    assert (second.encoded_images, len(second.failed)) == (0, 2)


def test_a_file_that_changed_after_the_crawl_fails_for_this_run_only(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    paths = write_pictures(tmp_path / "pictures", 3)
    before = paths[1].read_bytes()
    corpus = write_corpus(objects, paths)
    paths[1].write_bytes(png(77))
    first = run(fake_encoder, objects, corpus)
    assert [why.reason for why in first.failed.values()] == [Reason.CHANGED]
    paths[1].write_bytes(before)
    second = run(FakeEncoder(), objects, corpus, first)
    assert second.failed == {}
    assert second.encoded_images == 1


@pytest.mark.parametrize("poison", [np.nan, np.inf, 0.0])
def test_a_vector_without_unit_length_is_never_stored(
    objects: Objects, tmp_path: Path, poison: float
) -> None:
    class Poisoned(FakeEncoder):
        def encode_images(self, pixels: Pixels) -> Float32:
            out = super().encode_images(pixels)
            out[0] = poison
            return out

        def encode_texts(self, texts: Sequence[str]) -> Float32:
            out = super().encode_texts(texts)
            out[-1] = poison
            return out

    corpus = write_corpus(objects, write_pictures(tmp_path / "pictures", 3), ["one", "two"])
    report = run(Poisoned(), objects, corpus)
    assert {why.reason for why in report.failed.values()} == {Reason.BAD_VECTOR}
    assert text_key("two") in report.failed
    assert (report.encoded_images, report.encoded_texts) == (2, 1)


def test_any_script_and_even_lone_surrogates_are_encoded(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    texts = [
        "一只红色的猫",
        "שלום",
        "\ud83d broken",
        "a\x00b",
        "🦆" * 300,
        "\u202eevil",
        "",
        "x" * 100_000,
    ]
    corpus = write_corpus(objects, write_pictures(tmp_path / "pictures", 1), texts)
    report = run(fake_encoder, objects, corpus)
    assert sorted(vectors(objects, report, TEXT)) == sorted(map(text_key, texts))


def test_a_corpus_without_captions_or_images_is_fine(
    objects: Objects, fake_encoder: FakeEncoder
) -> None:
    report = run(fake_encoder, objects, write_corpus(objects, []))
    assert report.shards == {IMAGE: (), TEXT: ()}
    assert report.images_per_second == 0.0


def test_a_corpus_that_became_empty_keeps_no_shard(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    first = run(fake_encoder, objects, write_corpus(objects, write_pictures(tmp_path, 2), ["a"]))
    second = run(fake_encoder, objects, write_corpus(objects, []), first)
    assert second.shards == {IMAGE: (), TEXT: ()}


def test_an_encoder_that_is_not_the_announced_one_is_refused(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    corpus = write_corpus(objects, write_pictures(tmp_path / "pictures", 1))
    source = EncoderSource(
        fake_encoder.info, lambda: fake_encoder.preprocess, lambda: FakeEncoder(seed=9)
    )
    with pytest.raises(InternalError, match="changed"):
        encode(source, objects, corpus.tables, manifest(), settings())


@dataclass(slots=True)
class Wrong(FakeEncoder):
    """Gives vectors of another size than it says."""

    def encode_images(self, pixels: Pixels) -> Float32:
        return np.zeros((len(pixels), 3), dtype=np.float32)


def test_vectors_of_another_size_are_refused(objects: Objects, tmp_path: Path) -> None:
    corpus = write_corpus(objects, write_pictures(tmp_path / "pictures", 1))
    with pytest.raises(InternalError, match="vectors"):
        run(Wrong(), objects, corpus)
