"""One writer at a time.

flock, not a pid file: the kernel lets go when the process dies, however it dies, so no lock is
ever stolen by its age. Worker processes are spawned, never forked, so none inherits the lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mmindex.errors import BusyError, os_errors
from mmindex.store.layout import Layout


@contextmanager
def writer_lock(layout: Layout) -> Iterator[None]:
    """Hold the store's writer lock for the block.

    Raises:
        BusyError: another process holds it; the message names the process.
    """
    with os_errors(layout.lock_file):
        descriptor = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 100, 0).decode("ascii", "replace").strip() or "unknown"
            raise BusyError(
                f"{layout.root}: another mmindex run is writing to this store (process {holder})",
                "wait for it to end, then run this command again",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
