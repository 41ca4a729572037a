"""A cache in which each value is computed once, even with concurrent requests."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Memo(Generic[T]):
    """Values of the most recently used keys.

    The first thread that requests a key computes its value; only threads that request the same key
    wait for it. A failure is raised in all of them and not cached.

    Args:
        most: the largest number of values.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: OrderedDict[str, Future[T]] = OrderedDict()
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self._made.clear()

    def put(self, key: str, value: T) -> None:
        """Set the value of a key."""
        made: Future[T] = Future()
        made.set_result(value)
        with self._lock:
            self._made[key] = made
            self._made.move_to_end(key)
            if len(self._made) > self._most:
                self._made.popitem(last=False)

    def drop(self, key: str) -> None:
        """Remove the value of a key."""
        with self._lock:
            self._made.pop(key, None)

    def get(self, key: str, make: Callable[[], T]) -> T:
        """Return the value of a key; ``make`` computes it if it is missing."""
        with self._lock:
            known = self._made.get(key)
            future: Future[T] = Future() if known is None else known
            self._made[key] = future
            self._made.move_to_end(key)
            if len(self._made) > self._most:
                self._made.popitem(last=False)
        if known is None:
            try:
                future.set_result(make())
            except BaseException as error:
                with self._lock:
                    if self._made.get(key) is future:
                        del self._made[key]
                future.set_exception(error)
                raise
        return future.result()
