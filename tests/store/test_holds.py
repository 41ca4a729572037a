"""Readers hold their version: it is not removed, and the hold ends with the process."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmindex.core.errors import DataError
from mmindex.store import holds, versions
from mmindex.store.holds import hold_current, lock_exclusive, take_current, unlock
from mmindex.store.snapshot import open_snapshot
from support.images import write_pngs
from support.kept import publish_days_ago, reader
from support.models import FakeEncoder
from support.stores import image_store


def is_held(path: Path) -> bool:
    try:
        descriptor = lock_exclusive(path)
    except BlockingIOError:
        return True
    unlock(descriptor)
    return False


def test_a_version_is_held_for_the_block_by_any_number_of_readers(root):
    [made] = publish_days_ago(root, 1)
    layout = versions.open_layout(root)
    with hold_current(layout) as first:
        with hold_current(layout) as second:
            assert first == second == made
        assert is_held(layout.version(1))
    assert not is_held(layout.version(1))


def test_an_empty_store_holds_nothing(root):
    layout = versions.create_layout(root)
    with hold_current(layout) as nothing:
        assert nothing is None


def test_a_hold_can_be_released_twice(root):
    publish_days_ago(root, 1)
    layout = versions.open_layout(root)
    hold = take_current(layout)
    hold.release()
    hold.release()
    assert not is_held(layout.version(1))


def test_a_reader_overtaken_by_gc_reads_the_next_version(root, monkeypatch):
    """Another process publishes and runs gc between reading CURRENT and locking its manifest."""
    publish_days_ago(root, 1)
    layout = versions.open_layout(root)
    really = holds.lock_shared
    outrun = []

    def too_late(path):
        if not outrun:
            outrun.append(publish_days_ago(root, 0)[0])
            path.unlink()
        return really(path)

    monkeypatch.setattr(holds, "lock_shared", too_late)
    with hold_current(layout) as made:
        assert [made] == outrun
        assert is_held(layout.version(2))


def test_a_manifest_removed_while_waiting_for_its_lock_is_not_held(root):
    """The lock was granted on a file that no longer has a name."""
    publish_days_ago(root, 1)
    path = versions.open_layout(root).version(1)
    data = path.read_bytes()
    descriptor = os.open(path, os.O_RDONLY)
    path.unlink()
    path.write_bytes(data)
    assert not holds._is_linked(path, descriptor)
    path.unlink()
    assert not holds._is_linked(path, descriptor)
    os.close(descriptor)
    assert holds.lock_shared(path) is None


def test_damage_is_reported_and_not_waited_for(root):
    publish_days_ago(root, 1, 0)
    layout = versions.open_layout(root)
    layout.version(2).write_bytes(b"{}")
    with pytest.raises(DataError, match="damaged"):
        take_current(layout)
    layout.version(2).unlink()
    with pytest.raises(DataError, match="missing"):
        take_current(layout)


def test_a_reader_killed_by_kill_9_holds_no_more(root):
    publish_days_ago(root, 1)
    path = versions.open_layout(root).version(1)
    with reader(root) as process:
        assert is_held(path)
        process.kill()
        process.wait()
        assert not is_held(path)


def test_a_version_is_held_until_nothing_refers_to_it(tmp_path):
    [image] = write_pngs(tmp_path / "p", 1)
    image_store(tmp_path / "store", {"a": image}, [], FakeEncoder())
    path = versions.open_layout(tmp_path / "store").version(1)
    published = open_snapshot(tmp_path / "store")
    assert is_held(path)
    del published
    gc.collect()
    assert not is_held(path)


def test_a_store_of_another_user_can_be_read_and_held(tmp_path):
    """A hold needs no write permission, because the descriptor of the lock is read-only."""
    if os.getuid():
        pytest.skip("only root can become somebody else")
    nobody = 65534
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    publish_days_ago(tmp_path / "store", 1)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from mmindex.store import holds, versions\n"
        f"os.setgid({nobody}); os.setuid({nobody})\n"
        "layout = versions.open_layout(Path(sys.argv[1]))\n"
        "assert not os.access(layout.version(1), os.W_OK)\n"
        "print(holds.take_current(layout).manifest.version)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "store")], capture_output=True, text=True
    )
    assert done.stdout == "1\n", done.stderr


def test_a_store_on_a_read_only_file_system_can_be_held(root):
    publish_days_ago(root, 1)
    if subprocess.run(["mount", "--bind", root, root], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        remounted = subprocess.run(
            ["mount", "-o", "remount,bind,ro", root], capture_output=True
        ).returncode
        if remounted:
            pytest.skip("remounting is not permitted here")
        with pytest.raises(OSError, match="Read-only"):
            (root / "probe").touch()
        with hold_current(versions.open_layout(root)) as made:
            assert made.version == 1
    finally:
        subprocess.run(["umount", root], check=True)
