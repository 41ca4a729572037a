"""The metrics file: always complete, about the last run, with the last success."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mmindex.core.errors import BusyError, DataError, NoInputError, StorageError, Terminated
from mmindex.upkeep.metrics import MetricsFile
from support.fakestore import run_build, write_photos

TWELVE = {f"{number:02}.jpg": number for number in range(12)}


def samples(path):
    """Return values by name, or by name and labels except that of the store."""
    found = {}
    for family in text_string_to_metric_families(path.read_text("utf-8")):
        assert family.documentation
        for sample in family.samples:
            labels = tuple(v for k, v in sorted(sample.labels.items()) if k != "store")
            assert sample.labels["store"]
            found[(sample.name.removeprefix("mmindex_"), *labels)] = sample.value
    return found


def build(store, photos, path, run_id, **values):
    with MetricsFile(path, store, run_id):
        return run_build(store, photos, run_id=run_id, **values)


@pytest.fixture
def built(tmp_path):
    photos = write_photos(tmp_path / "photos", TWELVE)
    path = tmp_path / "mmindex.prom"
    build(tmp_path / "store", photos, path, "20260101T000000-a")
    return tmp_path / "store", photos, path


def test_a_build_is_reported_completely(built):
    store, _, path = built
    told = samples(path)
    assert told[("last_run_exit_code",)] == 0
    assert told[("last_run_timestamp_seconds",)] == told[("last_success_timestamp_seconds",)]
    assert (told[("version",)], told[("images",)], told[("captions",)]) == (1, 12, 24)
    assert told[("quarantined",)] == 0
    assert told[("published_bytes",)] > 1000
    for stage in ("crawl", "encode", "index", "evaluate"):
        assert ("last_run_stage_duration_seconds", stage) in told
    assert 0 <= told[("recall_ratio", "text_to_image", "1")] <= 1
    assert told[("index_recall_ratio", "image")] == 1
    assert f'store="{store}"' in path.read_text()


def test_the_last_success_survives_a_failed_run(built):
    store, photos, path = built
    before = samples(path)
    write_photos(photos, {}, captions={})
    with pytest.raises(DataError):
        build(store, photos, path, "20260102T000000-b")
    after = samples(path)
    assert after[("last_run_exit_code",)] == 65
    assert after[("last_run_timestamp_seconds",)] > before[("last_run_timestamp_seconds",)]
    for name in ("last_success_timestamp_seconds", "version", "images"):
        assert after[(name,)] == before[(name,)]


def test_it_survives_even_where_the_store_cannot_be_read(built, tmp_path):
    """With an unmounted disk, the known values stay, and the exit code shows the failure."""
    store, _, path = built
    before = samples(path)
    store.rename(tmp_path / "away")
    with pytest.raises(NoInputError), MetricsFile(path, store, "20260103T000000-c"):
        raise NoInputError("gone")
    after = samples(path)
    assert after[("last_run_exit_code",)] == 66
    for name in ("last_success_timestamp_seconds", "version", "images"):
        assert after[(name,)] == before[(name,)]


def test_a_run_that_finds_the_store_busy_leaves_the_file_to_the_one_that_holds_it(built):
    store, _, path = built
    before = path.read_bytes()
    with pytest.raises(BusyError), MetricsFile(path, store, "20260104T000000-d"):
        raise BusyError("another run")
    assert path.read_bytes() == before


def test_a_terminated_run_is_reported(built):
    store, _, path = built
    with pytest.raises(Terminated), MetricsFile(path, store, "20260105T000000-e"):
        raise Terminated
    assert samples(path)[("last_run_exit_code",)] == 143


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "new\nline", "späce ★", 'a{b="c"}'])
def test_a_hostile_store_path_stays_one_label(tmp_path, name):
    path = tmp_path / "m.prom"
    store = tmp_path / name
    for _ in range(2):  # the second build reads the file of the first
        with pytest.raises(NoInputError), MetricsFile(path, store, "x"):
            raise NoInputError("nothing there")
    (family, *_) = text_string_to_metric_families(path.read_text("utf-8"))
    assert family.samples[0].labels["store"] == str(store)


def test_a_write_that_fails_is_an_error_and_the_version_stays(tmp_path):
    photos = write_photos(tmp_path / "photos", TWELVE)
    store = tmp_path / "store"
    with pytest.raises(StorageError, match="metrics"):
        build(store, photos, tmp_path / "nowhere" / "m.prom", "20260101T000000-a")
    assert (store / "CURRENT").read_bytes().startswith(b'{"version":1')


def test_the_error_of_a_failed_run_is_the_one_reported(tmp_path):
    with (
        pytest.raises(DataError, match="first"),
        MetricsFile(tmp_path / "nowhere" / "m.prom", tmp_path, "x"),
    ):
        raise DataError("first")


def test_a_damaged_file_is_replaced(built):
    store, photos, path = built
    path.write_bytes(b"mmindex_version{store=\xff\n{{{")
    build(store, photos, path, "20260106T000000-f")
    assert samples(path)[("version",)] == 1


def test_files_of_killed_writers_are_removed_and_those_of_living_ones_kept(built):
    store, photos, path = built
    dead = subprocess.Popen(["true"])
    dead.wait()
    hexes = "0" * 32
    left = path.with_name(f".{path.name}.{dead.pid}.{hexes}.tmp")
    alive = path.with_name(f".{path.name}.{os.getpid()}.{hexes}.tmp")
    other = path.with_name(f".{path.name}.notes")
    for one in (left, alive, other):
        one.write_bytes(b"half")
    build(store, photos, path, "20260107T000000-g")
    assert not left.exists()
    assert alive.exists()
    assert other.exists()


def test_a_reader_never_sees_a_partial_file(tmp_path):
    """A writer is repeatedly killed in the middle of its work."""
    path = tmp_path / "m.prom"
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from mmindex.upkeep.metrics import write_metrics
        from mmindex.runs.report import RunReport, now
        while True:
            report = RunReport("x", "failed", 65, now(), now(), seconds={{"crawl": 1.0}})
            write_metrics(Path({str(path)!r}), Path({str(tmp_path / "store")!r}), report)
        """
    )
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", script]) as writer:
            seen = 0
            while seen < 300:
                if path.exists():
                    assert samples(path)[("last_run_exit_code",)] == 65
                    seen += 1
            writer.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.iterdir())) <= 2
