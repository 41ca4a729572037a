"""The report of ``doctor`` about the file system of a store."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mmindex.upkeep import doctor_disk
from mmindex.upkeep.doctor_disk import Mount, check_disk, local_locks, mount_of
from mmindex.upkeep.finding import State

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
40 22 0:40 / /mnt/data rw,relatime shared:2 - nfs4 srv:/x rw,vers=4.2,local_lock=none
41 40 0:41 / /mnt/data/old\\040one rw - nfs srv:/y rw,vers=3,nolock,local_lock=all
42 22 0:42 / /scratch rw - lustre mds:/fs rw,localflock
broken line
"""


@pytest.mark.parametrize(
    ("folder", "point", "kind"),
    [
        ("/home/ann", "/", "ext4"),
        ("/mnt/data/store", "/mnt/data", "nfs4"),
        ("/mnt/database", "/", "ext4"),
        ("/mnt/data/old one/store", "/mnt/data/old one", "nfs"),
    ],
)
def test_the_deepest_mount_above_a_folder_is_its_own(tmp_path, folder, point, kind):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    found = mount_of(Path(folder), tmp_path / "mountinfo")
    assert (found.point, found.kind) == (point, kind)


def test_without_a_list_of_mounts_nothing_is_known(tmp_path):
    assert mount_of(tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize(
    ("kind", "options", "word"),
    [
        ("nfs4", {"rw", "local_lock=none"}, ""),
        ("nfs", {"rw", "nolock"}, "nolock"),
        ("nfs4", {"local_lock=flock"}, "local_lock=flock"),
        ("lustre", {"rw", "flock"}, ""),
        ("lustre", {"rw", "localflock"}, "without flock"),
        ("fuse.s3fs", {"rw"}, "driver"),
        ("ext4", {"rw"}, ""),
    ],
)
def test_mounts_whose_locks_stay_on_one_machine_are_known(kind, options, word):
    told = local_locks(Mount("/", kind, frozenset(options)))
    assert word in told
    assert bool(told) == bool(word)


def test_a_usual_file_system_passes_and_nothing_is_left_behind(tmp_path):
    found = {one.what: one for one in check_disk(tmp_path)}
    assert set(found) == {"file system", "file locks", "renames", "fsync"}
    assert {found[name].state for name in ("file locks", "renames")} == {State.OK}
    assert found["fsync"].state is not State.BROKEN
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_a_second_process_also_gets_is_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_disk, "lock_file", lambda _descriptor: None)
    found = {one.what: one for one in check_disk(tmp_path)}
    assert found["file locks"].state is State.BROKEN


def test_a_failing_fsync_is_broken(tmp_path, monkeypatch):
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(doctor_disk.os, "fsync", fail)
    found = {one.what: one for one in check_disk(tmp_path)}
    assert found["fsync"].state is State.BROKEN
    assert "Input/output error" in found["fsync"].detail
