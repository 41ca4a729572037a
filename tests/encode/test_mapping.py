"""Vectors of an adapted model come from its parent's shards, without model and images."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmindex.core.errors import InternalError
from mmindex.core.records import Reason
from mmindex.encode.part import Part, encode_part
from mmindex.encode.stage import EncodeReport, encode
from mmindex.encode.work import EncoderSource
from mmindex.models.adapted import Affine, Maps
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.store.versions import create_layout
from support.encoding import IMAGE, TEXT, draft_after, run, settings, vectors
from support.images import write_pngs
from support.manifests import manifest
from support.mapped import DIM, MAPS, AdaptedEncoder, adapted_source
from support.models import FakeEncoder
from support.tables import Corpus, write_corpus


def adapt(
    objects: Objects,
    corpus: Corpus,
    first: EncodeReport,
    encoder: FakeEncoder | None = None,
    **changes: object,
) -> EncodeReport:
    """Encode with the adapted model after a run of its parent; None: nothing may be encoded."""

    def load() -> FakeEncoder:
        if encoder is None:
            raise AssertionError("the model was loaded")
        return encoder

    shape = FakeEncoder().preprocess
    source = EncoderSource(AdaptedEncoder().info, lambda: shape, load, maps=lambda: MAPS)
    retry = bool(changes.pop("retry", False))
    draft = Snapshot(objects, draft_after(first))
    return encode(source, draft, corpus.tables, settings(**changes), retry=retry)


def test_no_image_is_opened_and_no_model_loaded(objects: Objects, tmp_path: Path):
    paths = write_pngs(tmp_path / "pictures", 7)
    corpus = write_corpus(objects, paths, ["one", "two", "three"])
    first = run(FakeEncoder(), objects, corpus, config=settings(shard_rows=3))
    for path in paths:
        path.unlink()
    second = adapt(objects, corpus, first)
    assert (second.mapped_images, second.mapped_texts) == (7, 3)
    assert (second.encoded_images, second.encoded_texts) == (0, 0)
    assert (second.reused_images, second.failed) == (0, {})
    assert second.encoder.parent == first.encoder.fingerprint


def test_mapped_and_encoded_vectors_are_the_same(objects: Objects, tmp_path: Path):
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 7), ["one", "two"])
    first = run(FakeEncoder(), objects, corpus)
    mapped = adapt(objects, corpus, first)
    fresh = run(AdaptedEncoder(), objects, corpus)
    for side in (IMAGE, TEXT):
        one, other = vectors(objects, mapped, side), vectors(objects, fresh, side)
        assert one.keys() == other.keys()
        for key, vector in one.items():
            assert float(vector.astype(float) @ other[key].astype(float)) > 0.999


def test_items_that_the_parent_lacks_are_encoded(objects: Objects, tmp_path: Path):
    paths = write_pngs(tmp_path / "pictures", 6)
    first = run(FakeEncoder(), objects, write_corpus(objects, paths[:4], ["one"]))
    encoder = AdaptedEncoder()
    second = adapt(objects, write_corpus(objects, paths, ["one", "two"]), first, encoder)
    assert (second.mapped_images, second.mapped_texts) == (4, 1)
    assert (second.encoded_images, second.encoded_texts) == (2, 1)
    assert encoder.image_batches == [2]
    assert len(vectors(objects, second, IMAGE)) == 6


def test_what_the_parent_could_not_encode_is_known_to_fail(objects: Objects, tmp_path: Path):
    paths = write_pngs(tmp_path / "pictures", 4)
    paths[2].write_bytes(b"no picture")
    corpus = write_corpus(objects, paths)
    first = run(FakeEncoder(), objects, corpus)
    assert len(first.failed) == 1
    second = adapt(objects, corpus, first)
    assert second.failed == first.failed
    assert second.mapped_images == 3
    third = encode(
        EncoderSource(AdaptedEncoder().info, lambda: FakeEncoder().preprocess, FakeEncoder),
        Snapshot(objects, draft_after(second)),
        corpus.tables,
        settings(),
    )
    assert third.failed == first.failed
    assert third.shards == second.shards


def test_a_retry_encodes_what_the_parent_could_not(objects: Objects, tmp_path: Path):
    paths = write_pngs(tmp_path / "pictures", 4)
    paths[2].write_bytes(b"no picture")
    corpus = write_corpus(objects, paths)
    first = run(FakeEncoder(), objects, corpus)
    second = adapt(objects, corpus, first, AdaptedEncoder(), retry=True)
    assert second.mapped_images == 3
    assert [one.reason for one in second.failed.values()] != []


def test_another_models_vectors_are_not_mapped(objects: Objects, tmp_path: Path):
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 3))
    first = run(FakeEncoder(seed=1), objects, corpus)
    second = adapt(objects, corpus, first, AdaptedEncoder())
    assert (second.mapped_images, second.encoded_images) == (0, 3)


def test_a_killed_run_continues_at_its_shard(objects: Objects, tmp_path: Path):
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 9))
    first = run(FakeEncoder(), objects, corpus, config=settings(shard_rows=3))
    whole = adapt(objects, corpus, first)
    kept = whole.shards[IMAGE][0]
    for ref in whole.shards[IMAGE][1:]:
        objects.layout.object(ref.sha256).unlink()
    second = adapt(objects, corpus, first)
    assert (second.adopted_shards, second.reused_images, second.mapped_images) == (1, 3, 6)
    assert second.shards[IMAGE][0].sha256 == kept.sha256
    assert {ref.sha256 for ref in second.shards[IMAGE]} == {
        ref.sha256 for ref in whole.shards[IMAGE]
    }


def test_parts_map_vectors_as_one_run_does(tmp_path: Path):
    paths = write_pngs(tmp_path / "pictures", 11)
    paths[4].write_bytes(b"no picture")
    texts, config = ["one", "two", "three", "four"], settings(shard_rows=3)

    def parent(name: str) -> tuple[Objects, Corpus, EncodeReport]:
        objects = Objects(create_layout(tmp_path / name))
        first = run(FakeEncoder(), objects, write_corpus(objects, paths[:9], texts), config=config)
        return objects, write_corpus(objects, paths, texts), first

    objects, corpus, first = parent("alone")
    alone = adapt(objects, corpus, first, AdaptedEncoder(), shard_rows=3)
    assert (alone.mapped_images, alone.encoded_images) == (8, 2)

    objects, corpus, first = parent("parts")
    crawled = (corpus.images.named("crawl/images"), corpus.captions.named("crawl/captions"))
    before = draft_after(first)
    published = msgspec.structs.replace(before, objects=(*before.objects, *crawled))
    done = [
        encode_part(adapted_source(), published, objects, config, Part(number, 3))
        for number in (3, 1, 2, 2)
    ]
    assert sum(one.mapped_images for one in done) == 8
    assert sum(one.mapped_texts for one in done) == 4
    assert sum(one.encoded_images for one in done) == 2
    assert (done[3].units, done[3].done_before) == (done[2].units, done[2].units)
    again = adapt(objects, corpus, first, shard_rows=3)
    assert (again.mapped_images, again.encoded_images) == (0, 0)
    assert (again.shards, again.failed) == (alone.shards, alone.failed)


def test_a_map_to_zero_is_a_bad_vector(objects: Objects, tmp_path: Path):
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 2), ["one"])
    first = run(FakeEncoder(), objects, corpus)
    nothing = Affine(np.zeros((DIM, DIM), np.float32), np.zeros(DIM, np.float32))
    source = EncoderSource(
        AdaptedEncoder().info,
        lambda: FakeEncoder().preprocess,
        FakeEncoder,
        maps=lambda: Maps(nothing, MAPS.text, 1.0),
    )
    report = encode(source, Snapshot(objects, draft_after(first)), corpus.tables, settings())
    assert {one.reason for one in report.failed.values()} == {Reason.BAD_VECTOR}
    assert report.mapped_texts == 1


def test_a_damaged_shard_of_the_parent_is_encoded_again(objects: Objects, tmp_path: Path):
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 4))
    first = run(FakeEncoder(), objects, corpus, config=settings(shard_rows=2))
    path = objects.layout.object(first.shards[IMAGE][1].sha256)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    second = adapt(Objects(objects.layout), corpus, first, AdaptedEncoder())
    assert (second.mapped_images, second.encoded_images) == (2, 2)


def test_an_empty_store_has_nothing_to_map(objects: Objects, tmp_path: Path):
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 2))
    source = EncoderSource(
        AdaptedEncoder().info, lambda: FakeEncoder().preprocess, AdaptedEncoder, maps=lambda: MAPS
    )
    report = encode(source, Snapshot(objects, manifest()), corpus.tables, settings())
    assert (report.mapped_images, report.encoded_images) == (0, 2)


def test_missing_maps_are_an_error_not_missing_vectors(objects: Objects, tmp_path: Path):
    corpus = write_corpus(objects, write_pngs(tmp_path / "pictures", 2))
    first = run(FakeEncoder(), objects, corpus)
    source = EncoderSource(AdaptedEncoder().info, lambda: FakeEncoder().preprocess, AdaptedEncoder)
    with pytest.raises(InternalError, match="maps are not available"):
        encode(source, Snapshot(objects, draft_after(first)), corpus.tables, settings())
