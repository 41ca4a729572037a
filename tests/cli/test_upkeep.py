"""The maintenance commands and their exit codes."""

import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mmindex.store import versions
from mmindex.store.lock import writer_lock
from mmindex_cli.app import app
from support.command import mmindex, mmindex_json
from support.fakestore import run_build, write_photos
from support.kept import own, publish_days_ago, reader, snapshot


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Five real builds of a growing folder."""
    folder = tmp_path_factory.mktemp("built")
    for count in range(5, 10):
        write_photos(folder / "photos", {f"{number}.jpg": number for number in range(count)})
        run_build(folder / "store", folder / "photos")
    return folder / "store"


@pytest.fixture
def store(built, tmp_path):
    shutil.copytree(built, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def call():
    """Run a command in this process: (exit code, stdout, stderr)."""
    before = signal.getsignal(signal.SIGTERM)

    def invoke(*args):
        done = CliRunner().invoke(app, [str(arg) for arg in args])
        return done.exit_code, done.stdout, done.stderr

    yield invoke
    signal.signal(signal.SIGTERM, before)


def numbers(store):
    return versions.list_versions(versions.open_layout(store))


def test_gc_reports_what_is_removed_what_is_kept_and_why(store):
    """The complete command, as cron runs it."""
    dry = mmindex("gc", "--keep", 2, "--keep-days", 0, "--dry-run", "--store", store)
    assert numbers(store) == [1, 2, 3, 4, 5]
    done = mmindex("gc", "--keep", 2, "--keep-days", 0, "--store", store)
    assert numbers(store) == [4, 5]
    assert dry.stdout == done.stdout.replace("removed", "would remove")
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "kept version 4: among the newest 2",
        "kept version 5: published; among the newest 2",
    ]
    assert [line for line in lines if line.startswith("removed version")] == [
        f"removed version {number}" for number in (1, 2, 3)
    ]
    assert lines[-1].startswith("removed 3 version(s), ")
    assert "bytes" in lines[-1]
    mmindex("check", "--full", "--store", store)


def test_gc_json_is_one_object(store):
    [record] = mmindex_json("gc", "--store", store)
    assert record["removed"] == []
    assert record["kept"][4] == {
        "version": 5,
        "reasons": ["published", "among the newest 3", "younger than 7 days"],
    }
    assert {"blocked", "objects", "reports", "bytes_freed", "spared", "dry_run"} <= set(record)


def test_a_second_gc_ends_with_75(store, call):
    with writer_lock(versions.open_layout(store)):
        for command in (("gc",), ("rollback",), ("check", "--repair")):
            code, _, stderr = call(*command, "--store", store)
            assert code == 75
            assert "another mmindex run" in stderr
        assert call("gc", "--dry-run", "--store", store)[0] == 0


def test_gc_ends_with_75_while_forgotten_items_are_being_read(tmp_path, call):
    publish_days_ago(tmp_path / "s", 2)
    with reader(tmp_path / "s"):
        publish_days_ago(tmp_path / "s", 1, floor=2)
        code, stdout, stderr = call("gc", "--store", tmp_path / "s")
        assert code == 75
        assert "kept version 1: held by a reader" in stdout
        assert "forgotten items remain in version 1" in stderr
    code, stdout, _ = call("gc", "--store", tmp_path / "s")
    assert (code, "removed version 1\n" in stdout) == (0, True)


def test_queries_hold_their_version_while_they_run(built, tmp_path):
    """During a long ``query --queries``, builds and gc run; all answers come from its version."""
    shutil.copytree(built.parent, tmp_path / "all")
    store = tmp_path / "all" / "store"
    script = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from support.models import FakeEncoder\n"
        "from mmindex.store.snapshot import open_snapshot\n"
        "from mmindex.search.query import Session\n"
        "from mmindex.search.hits import Limit\n"
        "from mmindex.core.modality import Modality\n"
        "from pathlib import Path\n"
        "session = Session(open_snapshot(Path(sys.argv[2])), FakeEncoder)\n"
        "print('open', flush=True)\n"
        "lines = iter(sys.stdin.buffer.readline, b'')\n"
        "for answer in session.lines(lines, Modality.TEXT, Limit(3, None)):\n"
        "    print(answer.version, len(answer.hits), flush=True)\n"
    )
    tests = str(next(path for path in map(str, sys.path) if path.endswith("tests")))
    with subprocess.Popen(
        [sys.executable, "-c", script, tests, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "open\n"
        write_photos(tmp_path / "all" / "photos", {f"{n}.jpg": n for n in range(11)})
        run_build(store, tmp_path / "all" / "photos", limits__max_removed=1.0)
        collected = mmindex("gc", "--keep", 1, "--keep-days", 0, "--store", store)
        assert "kept version 5: held by a reader" in collected.stdout
        answers, _ = process.communicate("a square 1\n" * 3)
    assert answers == "5 3\n" * 3
    mmindex("gc", "--keep", 1, "--keep-days", 0, "--store", store)
    assert numbers(store) == [6]


def test_rollback_restores_a_version_and_reports_it(store, call):
    code, stdout, _ = call("rollback", "--store", store)
    assert code == 0
    assert "published version 6" in stdout
    assert "version 4" in stdout
    assert "nothing changed; still version 6" in mmindex("rollback", 4, "--store", store).stdout
    mmindex("check", "--full", "--store", store)


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        ("5", 2, "is the published version"),
        ("9", 66, "no version 9|no longer exists"),
        ("0", 2, ""),
    ],
)
def test_rollback_refuses_invalid_versions(number, code, words, store, call):
    found, _, stderr = call("rollback", number, "--store", store)
    assert found == code
    assert re.search(words, stderr)


def test_rollback_to_a_damaged_version_ends_with_65(store, call):
    layout = versions.open_layout(store)
    objects = {ref.sha256 for ref in versions.read_current(layout).objects}
    ref = next(r for r in versions.read_version(layout, 1).objects if r.sha256 not in objects)
    layout.object(ref.sha256).write_bytes(bytes(ref.bytes))
    code, _, stderr = call("rollback", 1, "--store", store)
    assert (code, "damaged" in stderr) == (65, True)
    assert numbers(store) == [1, 2, 3, 4, 5]


def test_versions_shows_sizes_origins_and_the_reasons_to_keep(store, call):
    call("rollback", 2, "--store", store)
    code, stdout, _ = call("versions", "--format", "json", "--store", store)
    rows = [json.loads(line) for line in stdout.splitlines()]
    assert code == 0
    assert [row["version"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["restored_from"] for row in rows] == [None] * 5 + [2]
    assert all(row["bytes"] > 1000 for row in rows)
    assert rows[5]["kept_as"] == ["published", "among the newest 3", "younger than 7 days"]
    code, stdout, _ = call("versions", "--store", store)
    assert stdout.splitlines()[5].startswith("*    6  ")
    assert "restored from 2" in stdout


def test_versions_shows_damaged_and_removable_versions(tmp_path, call):
    publish_days_ago(tmp_path / "s", 400, 300, 200, 190, 180)
    versions.open_layout(tmp_path / "s").version(2).write_bytes(b"{")
    code, stdout, _ = call("versions", "--store", tmp_path / "s")
    assert code == 0
    assert "removed by the next gc" in stdout.splitlines()[0]
    assert "not a manifest" in stdout.splitlines()[1]


def test_check_by_parts_covers_the_store(store, call):
    hashed = 0
    for part in range(1, 4):
        code, stdout, _ = call(
            "check", "--subset", f"{part}/3", "--format", "json", "--store", store
        )
        record = json.loads(stdout)
        assert (code, record["sound"]) == (0, True)
        hashed += record["hashed"]
    assert hashed == record["objects"]


@pytest.mark.parametrize("subset", ["", "1", "a/b", "0/3", "4/3", "1/2/3", "-1/3", "١/3"])
def test_an_invalid_part_ends_with_2(subset, store, call):
    assert call("check", "--subset", subset, "--store", store)[0] == 2


def test_a_part_of_a_full_check_ends_with_2(store, call):
    for whole in ("--full", "--repair"):
        assert call("check", "--subset", "1/2", whole, "--store", store)[0] == 2


def test_check_names_the_damage_and_repair_fixes_what_it_can(store, call):
    layout = versions.open_layout(store)
    objects = {ref.sha256 for ref in versions.read_current(layout).objects}
    old = next(r for r in versions.read_version(layout, 1).objects if r.sha256 not in objects)
    path = layout.object(old.sha256)
    path.write_bytes(bytes(old.bytes))
    layout.current_file.unlink()
    code, stdout, stderr = call("check", "--full", "--store", store)
    assert code == 65
    assert "CURRENT: missing" in stdout
    assert str(path) in stdout
    assert "check --repair" in stderr
    code, stdout, _ = call("check", "--repair", "--store", store)
    assert code == 0
    assert "CURRENT now points to version 5" in stdout
    assert "removed version 1: " in stdout
    assert "intact: " in stdout
    code, stdout, _ = call("check", "--repair", "--format", "json", "--store", store)
    record = json.loads(stdout)
    assert record["repair"] == {"version": 5, "moved": False, "dropped": []}


def test_gc_of_a_store_with_a_damaged_old_version_names_the_remedy(tmp_path, call):
    made = publish_days_ago(tmp_path / "s", 3, 2, 1)
    layout = versions.open_layout(tmp_path / "s")
    layout.version(2).write_bytes(b"{")
    before = snapshot(layout.root)
    code, _, stderr = call("gc", "--store", layout.root)
    assert (code, "check --repair" in stderr) == (65, True)
    assert snapshot(layout.root) == before
    assert "removed version 2" in call("check", "--repair", "--store", layout.root)[1]
    assert call("gc", "--store", layout.root)[0] == 0
    assert not own(layout, made[1]).exists()


@pytest.mark.parametrize("command", [("gc",), ("rollback",), ("versions",), ("check",)])
def test_no_store_ends_with_66(command, tmp_path, call):
    code, _, stderr = call(*command, "--store", tmp_path / "nowhere")
    assert (code, "no mmindex store" in stderr) == (66, True)


@pytest.mark.parametrize("option", [("--keep", "0"), ("--keep-days", "-1"), ("--keep-days", "nan")])
def test_a_retention_that_keeps_nothing_ends_with_2(option, store, call):
    assert call("gc", *option, "--store", store)[0] == 2
    assert numbers(store) == [1, 2, 3, 4, 5]


def test_versions_import_nothing_heavy(store):
    script = (
        "import sys\n"
        "from mmindex_cli.app import app\n"
        "try:\n"
        "    app(['versions', '--store', sys.argv[1]])\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "print('LOADED', *sorted({'torch', 'faiss', 'pyarrow', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store)], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "LOADED", done.stderr
