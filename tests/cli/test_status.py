"""``status``: the results of the last runs, and the age of the last success."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from mmindex.runs.report import RunReport
from support.command import mmindex, mmindex_json
from support.fakestore import run_build, write_photos


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("status")
    photos = write_photos(folder / "photos", {f"{n}.jpg": n for n in range(3)})
    run_build(folder / "store", photos, run_id="20260101T000000-a")
    return folder / "store"


def leave(store, **runs):
    """Replace all runs with these: ``{id: (outcome, hours ago)}``."""
    for path in (store / "runs").iterdir():
        path.unlink()
    for run_id, (outcome, hours) in runs.items():
        ended = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
        made = RunReport(run_id, outcome, 65 if outcome == "failed" else 0, ended, ended)
        (store / "runs" / f"{run_id}.json").write_bytes(msgspec.json.encode(made))


@pytest.mark.parametrize(
    ("runs", "code"),
    [
        ({"r1": ("published", 1)}, 0),
        ({"r1": ("unchanged", 25.9)}, 0),
        ({"r1": ("unchanged", 26.1)}, 65),
        ({"r1": ("published", 3), "r2": ("failed", 1)}, 0),
        ({"r1": ("published", 30), "r2": ("failed", 1)}, 65),
        ({"r1": ("failed", 1)}, 65),
        ({}, 65),
        ({"r1": ("published", -1)}, 65),
    ],
)
def test_max_age_uses_the_last_successful_run(store, runs, code):
    leave(store, **runs)
    done = mmindex("status", "--store", store, "--max-age", 26, code=code)
    assert "version 1" in done.stdout
    assert done.stderr.count("error: ") == done.stderr.count("hint: ") == (code != 0)


def test_a_success_in_the_future_is_a_wrong_clock(store):
    leave(store, r1=("published", -1))
    assert "clock" in mmindex("status", "--store", store, "--max-age", 26, code=65).stderr


def test_status_shows_the_last_run_and_the_last_success(store):
    leave(store, r1=("published", 50), r2=("failed", 1))
    shown = mmindex("status", "--store", store).stdout
    assert "failed with exit code 65, 60 min 0 s ago" in shown or "1 h 0 min ago" in shown
    assert "2 days ago" in shown
    (record,) = mmindex_json("status", "--store", store)
    assert (record["last_run"]["run_id"], record["last_success"]["run_id"]) == ("r2", "r1")
    leave(store)
    (record,) = mmindex_json("status", "--store", store)
    assert record["last_run"] is None


def test_status_loads_nothing_heavy(store):
    script = (
        "import sys\n"
        "from mmindex_cli.app import app\n"
        "try:\n"
        f"    app(['status', '--store', {str(store)!r}, '--max-age', '1000000'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'faiss', 'open_clip', 'pyarrow', 'numpy', 'duckdb', 'tqdm'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_build_prints_one_json_object(tmp_path):
    """The report of the run is printed on stdout only."""
    done = mmindex(
        "crawl", "--store", tmp_path / "store", "--source", "scenes:20@1", "--format", "json",
        "--log-format", "json",
    )  # fmt: skip
    record = json.loads(done.stdout)
    assert record["outcome"] == "published"
    assert record["changes"]["images"]["added"] == 20
    assert all(json.loads(line)["run_id"] == record["run_id"] for line in done.stderr.splitlines())
