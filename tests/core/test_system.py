"""Available cores are counted correctly, and freed memory is returned to the system."""

from __future__ import annotations

import ctypes
import math
import platform
import resource

import psutil
import pytest

from mmindex.core import system
from mmindex.core.system import reuse_freed_memory, trim_heap

BLOCK, BLOCKS = 64 << 10, 1_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory so")
def test_free_memory_below_a_used_block_is_returned():
    libc, process = ctypes.CDLL(None), psutil.Process()
    libc.malloc.restype = ctypes.c_void_p
    blocks = [libc.malloc(ctypes.c_size_t(BLOCK)) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    for block in blocks[:-1]:  # the last one keeps the end of the heap in place
        libc.free(ctypes.c_void_p(block))
    before = process.memory_info().rss
    trim_heap()
    after = process.memory_info().rss
    libc.free(ctypes.c_void_p(blocks[-1]))
    assert before - after > BLOCK * BLOCKS // 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_blocks_are_used_again_without_new_pages():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    size = 48 << 20

    def new_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            block = libc.malloc(ctypes.c_size_t(size))
            ctypes.memset(block, 1, size)
            libc.free(ctypes.c_void_p(block))
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    by_default = new_pages()
    reuse_freed_memory(64 << 20)
    try:
        new_pages()
        assert new_pages() < by_default // 10
    finally:
        reuse_freed_memory()
        trim_heap()


@pytest.mark.parametrize(
    ("membership", "files", "granted"),
    [
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"cpu.max": "max 100000"}, math.inf),
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3.0),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "400000 100000"}, 0.5),
        ("0::/../elsewhere\n", {"cpu.max": "200000 100000"}, 2.0),
        (
            "5:cpu,cpuacct:/job\n0::/\n",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        ("5:memory:/job\n", {"memory/job/cpu.max": "100000 100000"}, math.inf),
        ("0::/\n", {"cpu.max": "-1 100000"}, math.inf),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
    ],
)
def test_cores_are_limited_by_cgroup_quotas(tmp_path, monkeypatch, membership, files, granted):
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert system._quota(tmp_path / "cgroup", tmp_path / "mount") == granted
    monkeypatch.setattr(system, "_quota", lambda *_: granted)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert system.usable_cores() == min(8, math.ceil(granted) if granted < 8 else 8)


def test_a_system_without_cgroups_sets_no_limit(tmp_path):
    assert system._quota(tmp_path / "none", tmp_path) == math.inf
