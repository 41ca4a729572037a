"""Values that are made once, however many ask for them at the same time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Memo(Generic[T]):
    """The values of the keys that were asked for last.

    The first thread that asks for a key makes its value; others that ask meanwhile wait for it, and
    nobody else does. A failure is raised for all of them, and forgotten.

    Args:
        most: values that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: OrderedDict[str, Future[T]] = OrderedDict()
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Release all values."""
        with self._lock:
            self._made.clear()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """The value of a key; ``make`` makes it if it is not there."""
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
