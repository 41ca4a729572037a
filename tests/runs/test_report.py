"""Every run leaves a report that monitoring can rely on."""

import json
import signal

import msgspec
import pytest

from mmindex.core.errors import BusyError, DataError, StorageError, Terminated, exit_code_of
from mmindex.runs.report import RunReport, last_success, load_report, newest_first
from mmindex.store.layout import Layout
from mmindex.store.lock import writer_lock
from support.fakestore import run_build, write_photos

TWELVE = {f"{number:02}.jpg": number for number in range(12)}


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", TWELVE)


def report(store, run_id):
    return json.loads((store / "runs" / f"{run_id}.json").read_text())


def test_a_build_reports_counts_seconds_rates_bottleneck_and_memory(tmp_path, photos):
    done = run_build(tmp_path / "store", photos, run_id="20260101T000000-a")
    told = report(tmp_path / "store", "20260101T000000-a")
    assert (told["outcome"], told["exit_code"], told["version"]) == ("published", 0, 1)
    assert told["counts"]["indexed"] == 12
    assert told["changes"]["images"] == {"added": 12, "removed": 0, "replaced": 0, "unchanged": 0}
    assert list(told["seconds"]) == ["crawl", "encode", "index", "evaluate"]
    assert told["rates"]["encode"].keys() == {"images_per_second", "texts_per_second"}
    assert told["rates"]["crawl"]["items_per_second"] > 0
    assert told["bottleneck"]["part"] in ("decode", "model", "write")
    assert told["bottleneck"]["images_per_second"][told["bottleneck"]["part"]] > 0
    assert min(told["bytes_written"][stage] for stage in ("crawl", "encode", "index")) > 0
    peaks = [told["peak_rss_bytes_after"][stage] for stage in ("crawl", "encode", "index")]
    assert 10_000_000 < peaks[0] <= peaks[1] <= peaks[2] <= told["peak_rss_bytes"]
    assert told["error"] is None
    assert json.loads(msgspec.json.encode(done.report)) == told


def test_an_unchanged_corpus_is_reported_as_unchanged(tmp_path, photos):
    run_build(tmp_path / "store", photos)
    done = run_build(tmp_path / "store", photos)
    assert (done.report.outcome, done.published) == ("unchanged", False)
    assert done.report.changes["images"]["unchanged"] == 12
    assert done.report.bottleneck is None


def test_a_failed_run_reports_its_error_and_the_published_version(tmp_path, photos):
    store = tmp_path / "store"
    run_build(store, photos)
    write_photos(photos, {}, captions={})
    with pytest.raises(DataError):
        run_build(store, photos, run_id="20990101T000000-b")
    told = report(store, "20990101T000000-b")
    assert (told["outcome"], told["exit_code"], told["version"]) == ("failed", 65, 1)
    assert told["error"]["error"] == "DataError"
    assert "had 12 images in the last version and has none now" in told["error"]["message"]
    assert told["error"]["hint"]
    assert told["changes"]["images"]["removed"] == 12


def test_a_run_that_finds_the_store_busy_leaves_no_report(tmp_path, photos):
    store = tmp_path / "store"
    run_build(store, photos)
    before = sorted((store / "runs").iterdir())
    with writer_lock(Layout(store)), pytest.raises(BusyError):
        run_build(store, photos)
    assert sorted((store / "runs").iterdir()) == before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("x"), 65),
        (StorageError("x"), 74),
        (KeyboardInterrupt(), 130),
        (Terminated(), 128 + signal.SIGTERM),
        (PermissionError(13, "no"), 77),
        (ValueError("x"), 70),
    ],
)
def test_the_report_has_the_exit_code_that_the_command_ends_with(error, code):
    assert exit_code_of(error) == code


def write_report(store, run_id, outcome, ended="2026-01-01T03:00:00.000+00:00"):
    made = RunReport(run_id, outcome, 0 if outcome != "failed" else 65, ended, ended)
    (store / "runs").mkdir(parents=True, exist_ok=True)
    (store / "runs" / f"{run_id}.json").write_bytes(msgspec.json.encode(made))


def test_the_newest_success_is_found_among_failures_and_damage(tmp_path):
    write_report(tmp_path, "20260101T000000-a", "published")
    write_report(tmp_path, "20260102T000000-b", "unchanged")
    write_report(tmp_path, "20260103T000000-c", "failed")
    (tmp_path / "runs" / "20260104T000000-d.json").write_bytes(b'{"run_id": "20260104')
    (tmp_path / "runs" / "20260105T000000-e.json").write_bytes(b"\xff\x00")
    write_report(tmp_path, "20260106T000000-f", "published", ended="no time")
    layout = Layout(tmp_path)
    assert [one.run_id[-1] for one in newest_first(layout)] == ["c", "b", "a"]
    assert last_success(layout).run_id.endswith("b")
    assert load_report(layout, "20260104T000000-d") is None
    assert load_report(layout, "nothing") is None


def test_reports_of_earlier_releases_are_read(tmp_path):
    """They contain `failed: ...` and no start time."""
    old = {"run_id": "20250101T000000-a", "ended_at": "2025-01-01T00:00:00+00:00", "version": 1}
    (tmp_path / "runs").mkdir()
    path = tmp_path / "runs" / "20250101T000000-a.json"
    path.write_text(json.dumps({**old, "outcome": "published"}))
    assert list(newest_first(Layout(tmp_path))) == []
