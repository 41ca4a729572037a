"""An index that several workers fill is the index that one process fills."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from mmindex.core.config import Config, IndexConfig
from mmindex.core.errors import DataError, InternalError
from mmindex.index import fill as filling
from mmindex.index.build import build_index
from mmindex.index.decide import compare
from mmindex.index.extend import Before, Order, extend_index
from mmindex.index.fill import ClusterFiller, Part, ProcessFiller, fill_part, spans_of
from mmindex.index.gather import as_keys
from mmindex.store.snapshot import Snapshot
from mmindex.store.versions import create_layout
from support.clustered import clustered
from support.faiss_forms import die
from support.index_stores import key_of, manifest_of, open_objects, write_shards
from support.raying import cluster

N, DIM, MORE = 6_000, 32, 400
POOL = clustered(N + MORE, DIM, seed=5)


class Here:
    """Fills the parts in this process, the last one first."""

    workers = 3

    def parts(self, job, spans):
        for span in reversed(spans):
            yield fill_part(job, span)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mmindex.index.fill", "mmindex.index.train", "mmindex.index.extend"):
        monkeypatch.setattr(f"{module}.block_rows", lambda _dim: 500)


def built(folder: Path, config: IndexConfig, filler: object, n: int = N) -> Snapshot:
    objects = open_objects(folder)
    shards = write_shards(objects, POOL[:n], rows=2_000)
    keys = [key_of(number) for number in range(n)]
    report = build_index(objects, "image", keys, shards, config, filler=filler)
    return Snapshot(objects, manifest_of(report))


def digests(snapshot: Snapshot) -> dict[str, str]:
    return {ref.name: ref.sha256 for ref in snapshot.manifest.objects}


@pytest.mark.parametrize("kind", ["ivfpq", "sq8", "ivfflat", "IVF32,PQ8np", "IVF32,PQ16x4fs"])
def test_parts_in_any_order_give_the_same_bytes(tmp_path: Path, kind: str) -> None:
    config = IndexConfig(kind=kind, threads=1)
    parted = built(tmp_path / "parts", config, Here())
    assert digests(parted) == digests(built(tmp_path / "whole", config, None))
    assert not list((tmp_path / "parts" / "staging").iterdir())


@pytest.mark.slow
def test_processes_fill_the_same_index(tmp_path: Path) -> None:
    config = IndexConfig(kind="ivfpq", threads=2)
    parted = built(tmp_path / "parts", config, ProcessFiller(2))
    whole = built(tmp_path / "whole", config, None)
    assert digests(parted) == digests(whole)
    after = []
    for snapshot in (parted, whole):
        shards = write_shards(snapshot.objects, POOL, rows=2_000)
        keys = [key_of(number) for number in range(N + MORE) if number % 7]
        before = Before(snapshot, "image")
        change = compare(snapshot.keys("image"), as_keys(keys))
        report = extend_index(before, Order(change, shards, config, None))
        after.append({ref.name: ref.sha256 for ref in report.objects})
    assert after[0] == after[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_nodes_of_a_cluster_fill_the_same_index(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs ray: pip install 'mmindex[ray]'")
    from mmindex.cluster.join import Joined

    config = IndexConfig(kind="ivfpq", threads=1)
    (tmp_path / "tricks").mkdir()
    store = create_layout(tmp_path / "parts")
    with (
        cluster(tmp_path / "tricks", 2) as made,
        closing(Joined.join(made.address, store, Config())) as joined,
    ):
        parted = built(tmp_path / "parts", config, ClusterFiller.on(joined, 1))
    assert digests(parted) == digests(built(tmp_path / "whole", config, None))


def test_spans_end_with_whole_blocks_and_cover_all_ids() -> None:
    for n in (1, 499, 500, 501, 6_000, 6_001, 123_456):
        for workers in (1, 3, 1_000):
            spans = spans_of(n, 500, workers)
            assert [span.number for span in spans] == list(range(len(spans)))
            assert [span.first for span in spans[1:]] == [span.stop for span in spans[:-1]]
            assert (spans[0].first, spans[-1].stop) == (0, n)
            assert all(span.stop % 500 == 0 for span in spans[:-1])
            assert len(spans) <= min(256, 2 * workers)


def test_a_damaged_part_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    class Damaging(Here):
        def parts(self, job, spans):
            for span in spans:
                part = fill_part(job, span)
                path = job.scratch / part.sha256
                data = bytearray(path.read_bytes())
                data[len(data) // 2] ^= 1
                path.write_bytes(data)
                yield Part(part.number, part.sha256)

    with pytest.raises(DataError, match="damaged"):
        built(tmp_path / "s", IndexConfig(kind="ivfpq", threads=1), Damaging())
    assert not list((tmp_path / "s" / "staging").iterdir())


def test_a_process_that_dies_ends_the_run_with_its_remedy(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(filling, "fill_part", die)
    with pytest.raises(InternalError, match="died") as error:
        built(tmp_path / "s", IndexConfig(kind="ivfpq", threads=1), ProcessFiller(1))
    assert "fill_processes" in error.value.hint
    assert not list((tmp_path / "s" / "staging").iterdir())


def test_few_vectors_and_indexes_without_lists_are_filled_in_one_go(tmp_path: Path) -> None:
    class Never(Here):
        def parts(self, job, spans):
            raise AssertionError(job, spans)

    assert built(tmp_path / "a", IndexConfig(kind="ivfpq", threads=1), Never(), 400)
    assert built(tmp_path / "b", IndexConfig(kind="HNSW8", threads=1), Never())
