"""One writer at a time.

flock, not a pid file: the kernel lets go when the process dies, however it dies, so no lock is
ever stolen by its age. Worker processes are spawned, never forked, so none inherits the lock.
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
        # Only for the message above: a full disk must not keep `gc` from freeing it. Always as
        # long as any other note, so that none is cut first: the old block is written over.
        with suppress(OSError):
            os.pwrite(descriptor, f"{os.getpid():<{_NOTE_DIGITS}}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
