"""gc with damage, kills, concurrency and full disks: it fails, or the next run completes it."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from mmindex.core.errors import BusyError, DataError, StorageError
from mmindex.store import publish, versions
from mmindex.store.leftovers import remove_leftovers
from mmindex.store.lock import writer_lock
from mmindex.store.objects import Objects
from mmindex.upkeep.check import check
from support.collecting import numbers, run
from support.kept import own, publish_days_ago, snapshot, write


def test_a_damaged_version_to_keep_stops_gc_before_anything_is_removed(root):
    publish_days_ago(root, 9, 8, 7)
    layout = versions.open_layout(root)
    layout.version(2).write_bytes(b"{")
    before = snapshot(root)
    with pytest.raises(DataError, match=r"0002\.json: not a manifest") as caught:
        run(root)
    assert "check --repair" in caught.value.hint
    assert snapshot(root) == before


def test_a_damaged_current_stops_gc_and_every_writer(root):
    publish_days_ago(root, 9, 8)
    layout = versions.open_layout(root)
    for damage in (b"{", layout.current_file.read_bytes().replace(b'"version":2', b'"version":1')):
        layout.current_file.write_bytes(damage)
        before = snapshot(root)
        for work in (run, lambda root: remove_leftovers(versions.open_layout(root))):
            with pytest.raises(DataError, match="CURRENT"):
                work(root)
        assert snapshot(root) == before


@contextmanager
def stopped_after(monkeypatch, calls):
    """Removals fail from the n-th call on, as if the process had been killed there."""
    really, made = publish.remove_files, []

    def remove(paths):
        made.append(1)
        if len(made) > calls:
            raise StorageError("killed")
        really(paths)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "remove_files", remove)
        yield


@pytest.mark.parametrize("calls", range(3))
def test_killed_anywhere_it_leaves_complete_versions(calls, root, monkeypatch):
    made = publish_days_ago(root, 9, 8, 7)
    layout = versions.open_layout(root)
    with stopped_after(monkeypatch, calls), pytest.raises(StorageError):
        run(root)
    assert check(layout.root, full=True).problems == ()
    run(root)
    assert numbers(root) == [3]
    assert {path.name for path in layout.objects_dir.rglob("?" * 64)} == {
        ref.sha256 for ref in made[2].objects
    }


@pytest.mark.parametrize("calls", [1, 2])
def test_every_writer_finishes_what_was_interrupted_below_the_floor(calls, root, monkeypatch):
    """Objects are removed before manifests: a remaining manifest shows that work is left."""
    old = publish_days_ago(root, 2, 1)
    publish_days_ago(root, 0, floor=3)
    layout = versions.open_layout(root)
    with stopped_after(monkeypatch, calls), pytest.raises(StorageError):
        remove_leftovers(layout)
    assert numbers(root) == [1, 2, 3]
    assert check(layout.root, full=True).problems == ()
    remove_leftovers(layout)
    assert numbers(root) == [3]
    assert not any(own(layout, made).exists() for made in old)


def test_two_gcs_at_once_are_one_and_a_busy_error(root):
    publish_days_ago(root, 1)
    layout = versions.open_layout(root)
    with writer_lock(layout), pytest.raises(BusyError), writer_lock(layout):
        run(root)


_GC = """
import resource, sys
from pathlib import Path
from mmindex.upkeep.gc import Retention, gc
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file may grow by a single byte
print(gc(Path(sys.argv[1]), Retention(1, 0)).removed)
"""


def gc_in_a_process(root, how):
    return subprocess.run(
        [sys.executable, "-c", _GC, str(root), how], capture_output=True, text=True
    )


def test_years_of_versions_can_be_removed_in_one_run(root):
    """Each lock is an open file, and a process can have only a few."""
    publish_days_ago(root, *range(300, 0, -1))
    script = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (128, 4096))\n{_GC}"
    done = subprocess.run(
        [sys.executable, "-c", script, str(root), "few"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert numbers(root) == [300]


@pytest.mark.parametrize("note", ["", "4242\n", "of a longer process id 123456789012"])
def test_it_works_if_no_file_can_grow(note, root):
    publish_days_ago(root, 3, 2, 1)
    (root / "LOCK").write_text(note)
    done = gc_in_a_process(root, "limit")
    assert done.stdout == "(1, 2)\n", done.stderr
    assert numbers(root) == [3]


def test_it_works_on_a_disk_that_is_full_to_the_last_byte(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        root = disk / "store"
        publish_days_ago(root, 3, 2, 1)
        with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        layout = versions.open_layout(root)
        with pytest.raises(StorageError):
            write(Objects(layout), "index/x", bytes(8192))
        done = gc_in_a_process(root, "full")
        assert done.stdout == "(1, 2)\n", done.stderr
        assert check(layout.root, full=True).problems == ()
        assert os.statvfs(disk).f_bavail > 0
    finally:
        subprocess.run(["umount", disk], check=True)
