"""Each content gets one valid vector, and an item without one affects no other item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from mmindex.core.errors import DataError, InternalError
from mmindex.core.records import Reason
from mmindex.encode.stage import encode
from mmindex.encode.work import EncoderSource, Worker
from mmindex.models.encoder import Float32
from mmindex.models.preprocess import Pixels
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from support.encoding import IMAGE, TEXT, run, settings, source_of, vectors
from support.images import png, write_pngs
from support.manifests import manifest
from support.models import FakeEncoder
from support.tables import image_key, text_key, write_corpus


def test_every_key_gets_one_unit_vector(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    paths = write_pngs(tmp_path / "pictures", 11)
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
    paths = write_pngs(tmp_path / "pictures", 3)
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[0].read_bytes())
    corpus = write_corpus(objects, [*paths, copy, paths[1]], ["a", "b", "a", "a"])
    report = run(fake_encoder, objects, corpus)
    assert (report.encoded_images, report.encoded_texts) == (3, 2)


def test_a_bad_image_fails_alone_and_is_not_retried(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    paths = write_pngs(tmp_path / "pictures", 5)
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
    paths = write_pngs(tmp_path / "pictures", 4)
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
    paths = write_pngs(tmp_path / "pictures", 3)
    before = paths[1].read_bytes()
    corpus = write_corpus(objects, paths)
    paths[1].write_bytes(png(77))
    first = run(fake_encoder, objects, corpus)
    assert [why.reason for why in first.failed.values()] == [Reason.CHANGED]
    paths[1].write_bytes(before)
    second = run(FakeEncoder(), objects, corpus, first)
    assert second.failed == {}
    assert second.encoded_images == 1


def test_cut_texts_of_this_run_are_counted_with_a_warning(
    objects: Objects, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = write_pngs(tmp_path / "pictures", 1)
    encoder = FakeEncoder(context=2)
    first = run(encoder, objects, write_corpus(objects, paths, ["a b c", "a b", "a b d"]))
    assert (first.encoded_texts, first.cut_texts) == (3, 2)
    assert "cut=2" in caplog.text
    caplog.clear()
    more = write_corpus(objects, paths, ["a b c", "a b", "a b d", "a b c e"])
    second = run(encoder, objects, more, first)
    assert (second.encoded_texts, second.cut_texts) == (1, 1)
    third = run(encoder, objects, more, second)
    assert third.cut_texts == 0


def test_decoding_uses_all_cores_if_the_model_runs_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeEncoder()
    monkeypatch.setattr("mmindex.encode.work.usable_cores", lambda: 26)
    for on_gpu, expected in ((False, 16), (True, 26)):
        source = replace(source_of(fake), on_gpu=on_gpu)
        worker = Worker(source, settings(workers=None))
        assert worker._pool(1_000).workers == expected
        assert worker._pool(5).workers == expected  # those that are there stay


def test_a_batch_is_started_before_the_vectors_of_the_previous_one_are_collected(
    objects: Objects, tmp_path: Path
) -> None:
    """So that a GPU computes while images are decoded; each shard waits for its own batches."""
    events: list[str] = []

    class Queued(FakeEncoder):
        def start_images(self, pixels: Pixels) -> Callable[[], Float32]:
            number = len(self.image_batches)
            events.append(f"start {number}")
            vectors = self.encode_images(pixels)

            def wait() -> Float32:
                events.append(f"wait {number}")
                return vectors

            return wait

    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 10))
    queued = run(Queued(), objects, corpus, config=settings(batch_size=2, shard_rows=6))
    first = ["start 0", "start 1", "wait 0", "start 2", "wait 1", "wait 2"]
    assert events == [*first, "start 3", "start 4", "wait 3", "wait 4"]
    usual = run(FakeEncoder(), objects, corpus, config=settings(batch_size=2, shard_rows=6))
    assert queued.shards == usual.shards


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

    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 3), ["one", "two"])
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
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 1), texts)
    report = run(fake_encoder, objects, corpus)
    assert sorted(vectors(objects, report, TEXT)) == sorted(map(text_key, texts))


def test_a_corpus_without_captions_or_images_is_fine(
    objects: Objects, fake_encoder: FakeEncoder
) -> None:
    report = run(fake_encoder, objects, write_corpus(objects, []))
    assert report.shards == {IMAGE: (), TEXT: ()}
    assert report.images_per_second == 0.0


def test_an_unexpected_encoder_is_refused(
    objects: Objects, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 1))
    source = EncoderSource(
        fake_encoder.info, lambda: fake_encoder.preprocess, lambda: FakeEncoder(seed=9)
    )
    with pytest.raises(InternalError, match="changed"):
        encode(source, Snapshot(objects, manifest()), corpus.tables, settings())


@dataclass(slots=True)
class Wrong(FakeEncoder):
    """Returns vectors of another size than it states."""

    def encode_images(self, pixels: Pixels) -> Float32:
        return np.zeros((len(pixels), 3), dtype=np.float32)


def test_vectors_of_another_size_are_refused(objects: Objects, tmp_path: Path) -> None:
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 1))
    with pytest.raises(InternalError, match="vectors"):
        run(Wrong(), objects, corpus)


@pytest.mark.parametrize("side", ["images", "texts"])
def test_a_model_that_gives_no_usable_vector_stops_at_its_first_batch(
    objects: Objects, tmp_path: Path, side: str
) -> None:
    """One invalid vector means a bad image; a whole batch of them means a bad model."""

    class Broken(FakeEncoder):
        def encode_images(self, pixels: Pixels) -> Float32:
            out = super().encode_images(pixels)
            return out * np.float32(np.nan) if side == "images" else out

        def encode_texts(self, texts: Sequence[str]) -> Float32:
            out = super().encode_texts(texts)
            return out * np.float32(np.nan) if side == "texts" else out

    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 3), ["one", "two"])
    with pytest.raises(DataError, match="first batch") as caught:
        run(Broken(), objects, corpus)
    assert "precision" in caught.value.hint
