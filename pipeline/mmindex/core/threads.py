"""Threads for reading many files at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
# Enough to keep a file server busy; more requests would only wait in its queue.
_MOST = 16


def in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Call ``work`` on every item in up to 16 threads, and return the results in the same order.

    Use it for work that waits or releases the interpreter lock, such as reading or hashing files.
    An exception of ``work`` is raised again.
    """
    if len(items) < 2:  # a single item needs no thread
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(len(items), _MOST)) as pool:
        return list(pool.map(work, items))
