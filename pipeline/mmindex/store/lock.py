"""The writer lock: one writer at a time.

flock, not a pid file: the kernel releases the lock when the process exits for any reason, so no
lock is ever broken because of its age. Worker processes are spawned, never forked, so that none
inherits the lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mmindex.core.errors import BusyError, os_errors
from mmindex.core.system import lock_file
from mmindex.store.layout import Layout

_NOTE_DIGITS = 10  # any process id


@contextmanager
def writer_lock(layout: Layout) -> Iterator[None]:
    """Hold the store's writer lock for the block.

    Raises:
        BusyError: another process holds it; the message names the process.
    """
    with os_errors(layout.lock_file):
        descriptor = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            lock_file(descriptor)
        except BlockingIOError as error:
            note = os.pread(descriptor, 100, 0).decode("ascii", "replace").split()
            holder = note[0] if note else "unknown"
            raise BusyError(
                f"{layout.root}: another mmindex run is writing to this store (process {holder})",
                "wait until it has finished, then run this command again",
            ) from error
        # The note is only for the message above: on a full disk, `gc` must still be able to free
        # space. Notes have a fixed length and overwrite the old block, so nothing is truncated
        # first.
        with suppress(OSError):
            os.pwrite(descriptor, f"{os.getpid():<{_NOTE_DIGITS}}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
