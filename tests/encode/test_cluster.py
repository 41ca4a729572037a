"""Encoding on a simulated Ray cluster results in the same bytes as on one machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmindex.cluster import join as joining
from mmindex.cluster.join import Joined, site_of
from mmindex.core.config import Config
from mmindex.core.errors import (
    DataError,
    InternalError,
    ModelMismatchError,
    NetworkError,
    NoInputError,
)
from mmindex.encode import cluster as module
from mmindex.encode.cluster import ClusterWorker
from mmindex.encode.node import Sample, Setup, look
from mmindex.encode.stage import EncodeReport, encode
from mmindex.store.lock import writer_lock
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.store.staging import hold_staging
from mmindex.store.versions import create_layout
from support.encoding import IMAGE, TEXT, draft_after, run, settings
from support.images import png, write_pngs
from support.manifests import manifest
from support.mapped import adapted_source
from support.models import FakeEncoder
from support.raying import add_node, cluster, kill_node, nan_source, other_source, tricky_source
from support.tables import Corpus, image_key, write_corpus

pytest.importorskip("ray", reason="needs ray: pip install 'mmindex[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

CONFIG = settings(shard_rows=3, workers=1, cores=1)
TEXTS = [f"caption {number}" for number in range(12)]


class Bench:
    """One corpus in two stores: one encoded on one machine, the other on a cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tricks = folder / "tricks"
        self.tricks.mkdir()
        self.paths = write_pngs(folder / "pictures", 23)
        self.paths[4].write_bytes(png(4)[:60])  # it fails on every machine
        alone = Objects(create_layout(folder / "alone"))
        self.alone = run(FakeEncoder(), alone, write_corpus(alone, self.paths, TEXTS), None, CONFIG)
        assert len(self.alone.failed) == 1

    def store(self, name: str) -> tuple[Objects, Corpus]:
        objects = Objects(create_layout(self.folder / name))
        return objects, write_corpus(objects, self.paths, TEXTS)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def nodes(bench: Bench) -> Iterator[Any]:
    """A cluster that starts with one node; this process is connected to it."""
    import ray

    with cluster(bench.tricks) as made:
        ray.init(address=made.address, log_to_driver=False, configure_logging=False)
        yield made
        ray.shutdown()


@pytest.fixture(autouse=True)
def no_tricks(bench: Bench) -> Iterator[None]:
    yield
    for trick in bench.tricks.iterdir():
        trick.unlink()


def spread(
    nodes: Any,
    store: tuple[Objects, Corpus],
    config: Config = CONFIG,
    make_source: Any = tricky_source,
    workers: list[ClusterWorker] | None = None,
    draft: Manifest | None = None,
) -> EncodeReport:
    """Encode on the cluster, as a run does."""
    objects, corpus = store
    with writer_lock(objects.layout):
        snapshot = Snapshot(objects, draft or manifest())
        with closing(Joined.join(nodes.address, objects.layout, config)) as joined:
            worker = ClusterWorker.on(joined, config, None, make_source)
            if workers is not None:
                workers.append(worker)
            return encode(worker.source, snapshot, corpus.tables, config, cluster=worker)


def same(report: EncodeReport, bench: Bench) -> bool:
    return report.shards == bench.alone.shards and report.failed == bench.alone.failed


def nothing_staged(store: tuple[Objects, Corpus]) -> bool:
    return not list(store[0].layout.staging_dir.iterdir())


def test_one_node_writes_the_same_bytes_as_one_machine(nodes: Any, bench: Bench) -> None:
    store = bench.store("one")
    report = spread(nodes, store)
    assert same(report, bench)
    assert (report.retries, len(report.nodes)) == (0, 1)
    [figures] = report.nodes.values()
    assert (figures.images, figures.texts, figures.units) == (22, 12, 12)
    assert report.images_per_second > 0
    assert report.texts_per_second > 0
    assert report.bottleneck
    assert nothing_staged(store)


def test_a_killed_workers_unit_is_encoded_again(nodes: Any, bench: Bench) -> None:
    (bench.tricks / "die once").touch()
    store = bench.store("worker")
    report = spread(nodes, store)
    assert same(report, bench)
    assert report.retries == 1
    assert nothing_staged(store)  # nor are files of the dead worker


def test_a_unit_that_kills_three_workers_ends_the_run_and_finished_work_is_kept(
    nodes: Any, bench: Bench
) -> None:
    objects, corpus = store = bench.store("poison")
    first = run(FakeEncoder(), objects, corpus, None, CONFIG)
    lost = first.shards[IMAGE][3]
    objects.layout.object(lost.sha256).unlink()
    (bench.tricks / "die always").touch()
    objects = Objects(objects.layout)
    with pytest.raises(InternalError, match=r"unit 3 of images .*3 workers died") as caught:
        spread(nodes, (objects, corpus))
    assert str(bench.paths[9]) in caught.value.message
    (bench.tricks / "die always").unlink()
    again = run(FakeEncoder(), Objects(objects.layout), corpus, None, CONFIG)
    assert same(again, bench)
    assert again.encoded_images == lost.rows
    assert nothing_staged(store)


def test_a_lost_middle_unit_is_restored_at_its_position(nodes: Any, bench: Bench) -> None:
    objects, corpus = bench.store("lost")
    first = run(FakeEncoder(), objects, corpus, None, CONFIG)
    for ref in (first.shards[IMAGE][2], first.shards[TEXT][1]):
        objects.layout.object(ref.sha256).unlink()
    again = spread(nodes, (Objects(objects.layout), corpus))
    assert same(again, bench)
    assert (again.encoded_images, again.encoded_texts) == (3, 3)


def test_a_killed_driver_can_be_run_again(nodes: Any, bench: Bench) -> None:
    objects, corpus = store = bench.store("driver")
    before = len(list(objects.layout.objects_dir.glob("*/*")))
    (bench.tricks / "slow").write_text("0.4")
    code = (
        "import sys; from pathlib import Path; from support.raying import drive; "
        "drive(sys.argv[1], Path(sys.argv[2]), sys.argv[3])"
    )
    tables = ",".join(ref.sha256 for ref in corpus.tables)
    driver = subprocess.Popen(
        [sys.executable, "-c", code, nodes.address, str(objects.layout.root), tables]
    )
    while len(list(objects.layout.objects_dir.glob("*/*"))) < before + 2:
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    (bench.tricks / "slow").unlink()
    report = spread(nodes, store)
    assert same(report, bench)
    assert report.adopted_shards >= 2
    assert report.encoded_images < 22


def test_unsuitable_nodes_are_named(
    nodes: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = os.uname().nodename
    store = bench.store("unfit")
    with monkeypatch.context() as patch:
        versions = joining.package_versions() | {"mmindex": "0.0.1"}
        patch.setattr(joining, "package_versions", lambda: versions)
        with pytest.raises(ModelMismatchError, match=f"node {host}/.*mmindex is .* here and 0.0.1"):
            spread(nodes, store)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_agreed", lambda _: other_source(CONFIG, None).info)
        with pytest.raises(ModelMismatchError, match=f"node {host}/.*other files of the model"):
            spread(nodes, store)
    with pytest.raises(DataError, match=f"node {host}/.*first batch"):
        spread(nodes, store, make_source=nan_source)
    assert nothing_staged(store)


def test_vectors_of_an_adapted_model_are_mapped_on_the_nodes(nodes: Any, bench: Bench) -> None:
    reports = []
    for name in ("map alone", "map spread"):
        objects, corpus = store = bench.store(name)
        parent = draft_after(run(FakeEncoder(), objects, corpus, None, CONFIG))
        if name == "map spread":
            reports.append(spread(nodes, store, make_source=adapted_source, draft=parent))
        else:
            draft = Snapshot(objects, parent)
            reports.append(encode(adapted_source(), draft, corpus.tables, CONFIG))
    alone, report = reports
    assert (report.shards, report.failed) == (alone.shards, alone.failed)
    assert (report.mapped_images, report.encoded_images, report.mapped_texts) == (22, 0, 12)
    assert nothing_staged(store)


def test_a_cluster_without_room_for_a_unit_is_69(nodes: Any, bench: Bench) -> None:
    with pytest.raises(NetworkError, match="7 CPUs") as caught:
        spread(nodes, bench.store("large"), settings(cores=7))
    assert "`cores`" in caught.value.hint


def test_a_new_node_gets_units_and_a_dead_one_only_loses_its_unit(nodes: Any, bench: Bench) -> None:
    """Two nodes; the second joins during the run and is killed in the middle of a unit."""
    store, workers = bench.store("nodes"), list[ClusterWorker]()
    (bench.tricks / "slow").write_text("3.0")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(spread, nodes, store, workers=workers)
        second = add_node(nodes)
        while not workers or len(workers[0].nodes) < 2:
            assert not running.done(), running.result()
            time.sleep(0.05)
        kill_node(nodes, second)
        (bench.tricks / "slow").write_text("0.01")
        report = running.result()
    assert same(report, bench)
    assert len(report.nodes) == 2
    assert report.retries >= 1
    assert nothing_staged(store)


def test_a_node_checks_store_corpus_and_packages(tmp_path: Path) -> None:
    """The checks that every node runs, in this process."""
    layout = create_layout(tmp_path / "store")
    [path] = write_pngs(tmp_path / "pictures", 1)
    key = image_key(path.read_bytes())
    with hold_staging(layout) as held:
        site = site_of(held, CONFIG)
        setup = Setup(site, CONFIG, None, tricky_source)
        assert look(setup).model == "fake"
        good = replace(setup, samples=(Sample(key, str(path)),))
        assert look(good).model == "fake"
        for sample in (Sample(key, str(tmp_path / "gone.png")), Sample("0" * 64, str(path))):
            with pytest.raises(NoInputError, match="same place") as caught:
                look(replace(setup, samples=(sample,)))
            assert caught.value.exit_code == 66
        elsewhere = replace(setup, site=replace(site, held=tmp_path / "elsewhere"))
        with pytest.raises(NoInputError, match="not the store"):
            look(elsewhere)
    held.held.mkdir()  # they exist, but belong to nobody
    with pytest.raises(Exception, match="is not visible here"):
        look(setup)
