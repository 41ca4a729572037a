"""The shard of a unit depends only on its rows."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from mmindex.core import progress
from mmindex.core.modality import Modality
from mmindex.encode import shards
from mmindex.encode.stage import encode
from mmindex.encode.units import UnitRows, cut, read_units
from mmindex.encode.work import Worker
from mmindex.store.forgotten import Forgotten, write_forgotten
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.store.versions import create_layout
from support.encoding import IMAGE, TEXT, draft_after, run, settings, source_of
from support.images import png, write_pngs
from support.manifests import manifest
from support.models import FakeEncoder
from support.tables import Corpus, image_key, write_corpus

CONFIG = settings(shard_rows=5)
TEXTS = [f"caption {number}" for number in range(12)]


def elsewhere(tmp_path: Path, name: str) -> Objects:
    return Objects(create_layout(tmp_path / name))


def again(objects: Objects) -> Objects:
    """Return the same store for a reader that has verified nothing yet."""
    return Objects(objects.layout)


def lose(objects: Objects, *shas: str) -> None:
    for sha256 in shas:
        objects.layout.object(sha256).unlink()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return write_pngs(tmp_path / "pictures", 23)


@pytest.mark.parametrize("lost", [(1,), (0, 3), (4,), (0, 1, 2, 3, 4)], ids=str)
def test_lost_units_come_back_with_the_same_bytes_at_the_same_place(
    objects: Objects, paths: list[Path], lost: tuple[int, ...]
) -> None:
    corpus = write_corpus(objects, paths, TEXTS)
    whole = run(FakeEncoder(), objects, corpus, config=CONFIG)
    lose(objects, *(whole.shards[IMAGE][number].sha256 for number in lost))
    mended = run(FakeEncoder(), again(objects), corpus, config=CONFIG)
    assert mended.shards == whole.shards
    assert mended.adopted_shards == len(whole.shards[IMAGE]) + len(whole.shards[TEXT]) - len(lost)
    assert mended.encoded_images == sum(whole.shards[IMAGE][number].rows for number in lost)


def test_the_order_of_encoding_does_not_affect_the_result(
    objects: Objects, paths: list[Path], tmp_path: Path
) -> None:
    """Another process may have created the later ones first."""
    whole = run(FakeEncoder(), objects, write_corpus(objects, paths, TEXTS), config=CONFIG)
    other = elsewhere(tmp_path, "other")
    corpus = write_corpus(other, paths, TEXTS)
    run(FakeEncoder(), other, corpus, config=CONFIG)
    lose(other, *(ref.sha256 for ref in whole.shards[IMAGE][:3]))
    assert run(FakeEncoder(), again(other), corpus, config=CONFIG).shards == whole.shards


def test_a_temporarily_missing_image_does_not_affect_other_units(
    objects: Objects, paths: list[Path]
) -> None:
    corpus = write_corpus(objects, paths)
    data = paths[1].read_bytes()
    paths[1].write_bytes(png(99))
    first = run(FakeEncoder(), objects, corpus, config=CONFIG)
    assert first.encoded_images == len(paths) - 1
    lose(objects, first.shards[IMAGE][2].sha256)
    second = run(FakeEncoder(), again(objects), corpus, config=CONFIG)
    assert second.shards == first.shards
    paths[1].write_bytes(data)
    third = run(FakeEncoder(), again(objects), corpus, first, CONFIG)
    assert third.shards[IMAGE][: len(first.shards[IMAGE])] == first.shards[IMAGE]
    assert (third.encoded_images, third.failed) == (1, {})


def test_a_unit_without_results_has_no_shard(objects: Objects, paths: list[Path]) -> None:
    corpus = write_corpus(objects, paths)
    for path in paths[:5]:
        path.unlink()
    report = run(FakeEncoder(), objects, corpus, config=CONFIG)
    assert [ref.rows for ref in report.shards[IMAGE]] == [5, 5, 5, 3]
    assert len(report.failed) == 5


def test_units_are_cut_by_wanted_rows_and_contain_missing_ones() -> None:
    wanted = np.array([1, 0, 1, 1, 1, 1, 0, 1], dtype=bool)
    missing = np.array([1, 0, 0, 0, 1, 0, 0, 1], dtype=bool)
    units = cut(wanted, missing, 2)
    assert [(unit.number, unit.first, unit.rows.tolist()) for unit in units] == [
        (0, 0, [0]),
        (1, 4, [4]),
        (2, 7, [7]),
    ]
    assert cut(wanted & False, missing, 2) == []


def test_a_worker_keeps_its_model_and_its_decoders_between_units(
    objects: Objects, paths: list[Path]
) -> None:
    loads = itertools.count()

    def load() -> FakeEncoder:
        next(loads)
        return FakeEncoder()

    config = settings(shard_rows=5, workers=1)
    source = source_of(FakeEncoder())
    source = type(source)(source.info, source.preprocess, load)
    seen: list[set[int]] = []

    class Watched(Worker):
        def _finish(self, *args):  # type: ignore[no-untyped-def]
            pool = self._decoders
            assert pool is not None
            seen.append({id(pool._pool)})
            return super()._finish(*args)

    corpus = write_corpus(objects, paths[:10])
    rows = [UnitRows(0, np.arange(5)), UnitRows(1, np.arange(5, 10))]
    worker = Watched(source, config)
    for unit in read_units(objects, corpus.images, IMAGE, rows):
        [result] = worker.encode(objects, IMAGE, [unit], unit.size)
        assert result.encoded == 5
        assert {"image_wait", "image_model", "image_write"} <= result.seconds.keys()
    worker.close()
    assert next(loads) == 1
    assert len(set.union(*seen)) == 1


def test_a_stopped_clock_causes_no_division_by_zero(
    objects: Objects, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.time, "perf_counter", lambda: 1.0)
    report = run(FakeEncoder(), objects, write_corpus(objects, paths))
    assert (report.encoded_images, report.images_per_second) == (23, 0.0)


def test_many_leftovers_are_found_among_other_files(objects: Objects, paths: list[Path]) -> None:
    config = settings(shard_rows=1)
    corpus = write_corpus(objects, paths, TEXTS)
    run(FakeEncoder(seed=1), objects, corpus, config=config)
    whole = run(FakeEncoder(), objects, corpus, config=config)
    strange = objects.layout.objects_dir / "ab"
    strange.mkdir(exist_ok=True)
    for number, data in enumerate([b"", b"PAR1", b"PAR1" * 20, b"no table"]):
        (strange / f"ab{number:062d}").write_bytes(data)
    found = run(FakeEncoder(), again(objects), corpus, config=config)
    assert (found.encoded_images, found.encoded_texts) == (0, 0)
    assert found.reused_images == whole.encoded_images


def leftover(objects: Objects, corpus: Corpus) -> None:
    """Leave what a run leaves that is killed before it publishes."""
    assert run(FakeEncoder(), objects, corpus).encoded_images == 3


@pytest.mark.parametrize("forgetting", [False, True])
def test_leftovers_that_hold_what_was_forgotten_are_not_reused(
    objects: Objects, paths: list[Path], forgetting: bool
) -> None:
    """The process that created them may have started before the item was forgotten."""
    leftover(objects, write_corpus(objects, paths[:3]))
    forgotten = Forgotten(keys=frozenset({bytes.fromhex(image_key(paths[0].read_bytes()))}))
    known = (write_forgotten(objects, forgotten),) if forgetting else ()
    draft = Snapshot(again(objects), manifest(objects=known))
    report = encode(
        source_of(FakeEncoder()), draft, write_corpus(objects, paths[1:3]).tables, CONFIG
    )
    assert (report.adopted_shards, report.encoded_images) == ((0, 2) if forgetting else (1, 0))


def test_shards_with_a_number_in_them_are_read_and_reused(
    objects: Objects, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards as mmindex wrote them before there were units."""
    made = shards.shard_schema

    def old(dim, metadata):  # type: ignore[no-untyped-def]
        kept = {key: value for key, value in metadata.items() if key != b"mmindex.unit"}
        return made(dim, {**kept, b"mmindex.sequence": "7"})

    corpus = write_corpus(objects, paths, TEXTS)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "shard_schema", old)
        first = run(FakeEncoder(), objects, corpus, config=CONFIG)
    adopted = run(FakeEncoder(), again(objects), corpus, config=CONFIG)
    assert adopted.shards == first.shards
    kept = encode(
        source_of(FakeEncoder()), Snapshot(objects, draft_after(first)), corpus.tables, CONFIG
    )
    assert kept.shards == first.shards
    assert kept.encoded_images == adopted.encoded_images == 0
    assert set(kept.shards) == set(Modality)
