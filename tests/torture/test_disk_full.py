"""A full disk of any size is a clear error; ``gc`` needs no free space (guarantee 4).

The file system is a tmpfs of its own that grows in steps of a page. Every page that a run takes,
the last one of an index file too, is so at some step the first that is refused. RLIMIT_FSIZE does
the same for the size of single files (and gives EFBIG); it needs no privilege.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.oracle import copy_store
from support.tally import Tally
from support.workloads import Bench, Workload
from support.zygote import Ended

pytestmark = pytest.mark.timeout(1800)
PAGE = 4096
STORAGE_EXIT = 74
ROOM = 64 << 20
NAMES = (
    "first build",
    "first build quantised",
    "build quantised with changes",
    "model change",
    "forget",
    "rollback",
)


class Disk:
    """Mount a small tmpfs at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        size = f"size={ROOM},mode=755"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "tmpfs", path], capture_output=True, text=True
        )
        if done.returncode:
            path.rmdir()
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True)

    def used(self) -> int:
        """Return the size in whole pages."""
        status = os.statvfs(self.path)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def close(self) -> None:
        subprocess.run(["umount", self.path], check=True)
        self.path.rmdir()


@pytest.fixture
def disk(bench: Bench) -> Iterator[Disk]:
    made = Disk(bench.folder / "disk")
    yield made
    made.close()


def on_disk(work: Workload, disk: Disk) -> Workload:
    """The workload with its store on the small disk."""
    store = disk.path / "store"
    argv = [word if word != str(work.store) else str(store) for word in work.argv]
    return replace(work, store=store, argv=argv)


def judged(work: Workload, ended: Ended) -> list[str]:
    """Return what the oracle reports, and whether the exit code and the message are right."""
    found = work.violations(ended.code)
    if ended.code not in (0, STORAGE_EXIT):
        found.append(f"{ended}")
    if ended.code == STORAGE_EXIT and "error: " not in ended.stderr:
        found.append(f"no error is named: {ended}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_size_of_a_full_disk_is_survived(
    name: str, workload: Callable[[str], Workload], disk: Disk, tally: Tally, full: bool
) -> None:
    work = on_disk(workload(name), disk)
    work.reset()
    before = disk.used()
    assert work.run().code == 0
    # Files that are staged for a moment need additional space.
    sizes = range(max(before, PAGE), disk.used() + 16 * PAGE, PAGE)
    dice = random.Random(tally.seed(f"sizes {name}"))
    # A rollback takes one or two pages, so that a draw can miss every size that refuses it: the
    # first size, which leaves no free page, is always tried.
    drawn = dice.sample(sizes[1:], min(6, len(sizes) - 1))
    tried = sizes if full else [sizes[0], *sorted(drawn)]
    bad, refused = [], 0
    for size in tried:
        disk.resize(ROOM)
        work.reset()
        disk.resize(size)
        ended = work.run()
        disk.resize(ROOM)
        refused += ended.code == STORAGE_EXIT
        found = judged(work, ended)
        tally.add("disk sizes", tried=1, refused=ended.code == STORAGE_EXIT, survived=not found)
        bad += [f"{size} bytes: {line}" for line in found]
    assert not bad, "\n".join(bad[:20])
    assert refused


@pytest.mark.parametrize("name", NAMES)
def test_every_limit_on_file_size_is_survived(
    name: str, workload: Callable[[str], Workload], tally: Tally, full: bool
) -> None:
    work = workload(name)
    work.reset()
    assert work.run().code == 0
    largest = max(path.stat().st_size for path in work.store.rglob("*") if path.is_file())
    bad = []
    for limit in range(PAGE, largest, PAGE if full else max(PAGE, largest // 3)):
        work.reset()
        found = judged(work, work.run(file_limit=limit))
        tally.add("file size limits", tried=1, survived=not found)
        bad += [f"{limit} bytes: {line}" for line in found]
    assert not bad, "\n".join(bad[:20])


def test_gc_works_with_no_byte_free(
    workload: Callable[[str], Workload], disk: Disk, tally: Tally
) -> None:
    work = on_disk(workload("gc"), disk)
    copy_store(work.template, work.store)
    disk.resize(disk.used())
    with pytest.raises(OSError, match="No space left"):
        (disk.path / "more").write_bytes(bytes(1))
    ended = work.run()
    assert ended.code == 0, ended
    freed = os.statvfs(disk.path).f_bavail
    assert freed, "gc freed nothing"
    disk.resize(ROOM)
    found = work.violations(ended.code)
    assert not found
    tally.add("gc on a full disk", tried=1, survived=1)
