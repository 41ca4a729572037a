"""Threads, for waiting on many files at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
# Enough to keep a file server busy; more only queue there.
_MOST = 16


def in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Call ``work`` on every item, several at a time; the results in the items' order.

    For what waits or lets go of the interpreter's lock: reading files, hashing them.
    """
    if len(items) < 2:  # one needs no thread
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(len(items), _MOST)) as pool:
        return list(pool.map(work, items))
