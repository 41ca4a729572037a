"""Every exit code, each from a real command in a real situation."""

import json
import os
import shutil
import signal
import subprocess
import time

import psutil
import pytest

from mmindex.store.layout import Layout
from mmindex.store.lock import writer_lock
from support.command import MMINDEX, mmindex
from support.images import write_pngs

# How long a command may take to stop after SIGTERM.
STOP_WITHIN_S = 30


@pytest.fixture
def store(tmp_path):
    mmindex("crawl", "--store", tmp_path / "store", "--source", "scenes:20@1")
    return tmp_path / "store"


def one_error(done):
    """One line states the problem, and no line is for programmers only."""
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_0_done_and_0_nothing_changed(store):
    assert "nothing changed" in mmindex("crawl", "--store", store).stdout


def test_2_usage(tmp_path):
    one_error(mmindex("build", "--source", "nonsense:x", "--store", tmp_path / "s", code=2))


def test_65_a_source_folder_is_suddenly_empty_and_nothing_is_removed(tmp_path):
    folder, store = tmp_path / "photos", tmp_path / "store"
    write_pngs(folder, 12)
    mmindex("crawl", "--store", store, "--source", f"folder:{folder}")
    before = (store / "CURRENT").read_bytes()
    for image in folder.iterdir():
        image.unlink()
    told = one_error(mmindex("crawl", "--store", store, code=65))
    assert "had 12 images in the last version and has none now" in told
    assert "unmounted" in told
    assert (store / "CURRENT").read_bytes() == before
    assert "12 of 12 seen" in mmindex("status", "--store", store).stdout


def test_66_no_such_store(tmp_path):
    one_error(mmindex("status", "--store", tmp_path / "none", code=66))


def test_69_the_model_hub_cannot_be_reached(tmp_path):
    write_pngs(tmp_path / "photos", 3)
    told = one_error(
        mmindex(
            "build", "--store", tmp_path / "s", "--source", f"folder:{tmp_path / 'photos'}",
            env={"HF_HOME": str(tmp_path / "hub")}, code=69,
        )
    )  # fmt: skip
    assert "hint: " in told


def test_70_a_bug(store, tmp_path):
    """An installation that appears broken to the command."""
    broken = "import mmindex.store.versions as v\nv.read_current = lambda layout: 1 / 0\n"
    (tmp_path / "sitecustomize.py").write_text(broken)
    told = one_error(
        mmindex("status", "--store", store, env={"PYTHONPATH": str(tmp_path)}, code=70)
    )
    assert "ZeroDivisionError" in told
    assert "--debug" in told


def test_73_something_else_is_in_the_way(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = tmp_path / "file" / "store"
    one_error(mmindex("crawl", "--store", store, "--source", "scenes:20@1", code=73))


def test_74_the_disk_is_full(store):
    with open("/dev/full", "w") as full:  # noqa: PTH123 # a stream for another process
        done = subprocess.run(
            [MMINDEX, "status", "--store", store], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 74
    one_error(done)


def test_75_another_run_holds_the_store(store):
    with writer_lock(Layout(store)):
        told = one_error(mmindex("crawl", "--store", store, code=75))
    assert str(os.getpid()) in told


def test_77_no_permission(store):
    program = [str(MMINDEX)]
    if os.geteuid() == 0:  # root ignores file modes unless it gives up this right
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and setpriv is not installed")
        program = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *program]
    store.chmod(0o500)
    try:
        done = subprocess.run([*program, "crawl", "--store", store], capture_output=True, text=True)
    finally:
        store.chmod(0o755)
    assert done.returncode == 77, done.stderr
    one_error(done)


def test_78_a_store_of_another_format(store):
    (store / "FORMAT").write_text("2\n")
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    one_error(mmindex("crawl", "--store", store, code=78))
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_130_and_143_a_signal_stops_it_cleanly(tmp_path, number, code, word):
    """No orphans remain, the lock is free, a report is written, and the next run ends the work."""
    store, metrics = tmp_path / "store", tmp_path / "m.prom"
    args = [MMINDEX, "build", "--store", store, "--metrics-file", metrics]
    process = subprocess.Popen(
        [*args, "--source", "scenes:9000@1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    drawing = store / "staging"
    while not any(path.is_dir() for path in drawing.glob("*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    out, err = process.communicate(timeout=STOP_WITHIN_S)
    assert (process.returncode, out) == (code, b"")
    error, hint = err.decode().splitlines()[-2:]
    assert error == f"error: {word}"
    assert hint.startswith("hint: finished downloads and encoded shards are kept")
    assert not [child for child in children if child.is_running() and child.status() != "zombie"]
    (report,) = [json.loads(path.read_text()) for path in (store / "runs").iterdir()]
    assert (report["outcome"], report["exit_code"], report["version"]) == ("failed", code, 0)
    assert f'mmindex_last_run_exit_code{{store="{store}"}} {code}.0' in metrics.read_text()
    mmindex("crawl", "--store", store, "--source", "scenes:20@1")
    assert list(drawing.iterdir()) == []
