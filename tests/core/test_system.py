"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import platform

import psutil
import pytest

from mmindex.core.system import trim_heap

BLOCK, BLOCKS = 64 << 10, 1_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory so")
def test_what_lies_free_below_a_used_block_is_given_back():
    libc, process = ctypes.CDLL(None), psutil.Process()
    libc.malloc.restype = ctypes.c_void_p
    blocks = [libc.malloc(ctypes.c_size_t(BLOCK)) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    for block in blocks[:-1]:  # the last one keeps the heap's end where it is
        libc.free(ctypes.c_void_p(block))
    before = process.memory_info().rss
    trim_heap()
    after = process.memory_info().rss
    libc.free(ctypes.c_void_p(blocks[-1]))
    assert before - after > BLOCK * BLOCKS // 2
