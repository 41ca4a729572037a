"""Holds protect the version that a reader uses from ``gc``.

A hold is a shared flock on the version's manifest. The collector needs the exclusive lock before it
removes a manifest; if the lock is refused, a reader uses the version. The kernel releases the lock
when the reader exits for any reason. Locking needs no write permission, so a store that belongs to
another user can be held too.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmindex.core.errors import from_os_error, os_errors
from mmindex.core.system import lock_file
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest


class Hold:
    """A version that is held until :meth:`release`, or until this object is garbage-collected.

    Attributes:
        manifest: the manifest of the held version.
    """

    def __init__(self, manifest: Manifest, descriptor: int) -> None:
        self.manifest = manifest
        self._finalizer = weakref.finalize(self, unlock, descriptor)

    def release(self) -> None:
        """Release the hold; repeated calls do nothing."""
        self._finalizer()


def take_current(layout: Layout) -> Hold | None:
    """Hold the published version; None if nothing is published yet.

    If ``gc`` removes the version before it is locked, CURRENT has changed in the meantime and is
    read again.

    Raises:
        DataError: CURRENT or the manifest is damaged.
    """
    pointer = versions.read_current_pointer(layout)
    while pointer is not None:
        descriptor = lock_shared(layout.version(pointer.version))
        if descriptor is not None:
            return _read_held(layout, pointer.version, pointer.manifest_sha256, descriptor)
        again = versions.read_current_pointer(layout)
        if again == pointer:
            versions.read_current_checked(layout, pointer)  # reports the missing manifest
        pointer = again
    return None


@contextmanager
def hold_current(layout: Layout) -> Iterator[Manifest | None]:
    """Hold the published version for the block; None if nothing is published yet.

    Raises:
        DataError: CURRENT or the manifest is damaged.
    """
    hold = take_current(layout)
    try:
        yield None if hold is None else hold.manifest
    finally:
        if hold is not None:
            hold.release()


def _read_held(layout: Layout, number: int, sha256: str, descriptor: int) -> Hold:
    path = layout.version(number)
    try:
        with os_errors(path), open(descriptor, "rb", closefd=False) as file:
            data = file.read()
        return Hold(versions.checked(layout, number, data, sha256), descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def lock_shared(path: Path) -> int | None:
    """Lock a manifest for reading.

    Returns:
        The descriptor that holds the lock; None if the file is missing or was removed meanwhile.

    Raises:
        MmindexError: the file cannot be opened or locked.
    """
    return _lock(path, os.O_RDONLY, shared=True)


def lock_exclusive(path: Path) -> int | None:
    """Lock a manifest against readers, without waiting for them.

    Returns:
        The descriptor that holds the lock; None if the file does not exist.

    Raises:
        BlockingIOError: a reader holds it.
        MmindexError: the file cannot be opened or locked.
    """
    # Over NFS, an exclusive lock needs a writable descriptor.
    return _lock(path, os.O_RDWR, shared=False)


def unlock(descriptor: int) -> None:
    """Release a lock from :func:`lock_shared` or :func:`lock_exclusive`."""
    with suppress(OSError):  # nothing was written, and the lock is released even if closing fails
        os.close(descriptor)


def _lock(path: Path, access: int, *, shared: bool) -> int | None:
    with os_errors(path):
        try:
            descriptor = os.open(path, access)
        except FileNotFoundError:
            return None
    try:
        lock_file(descriptor, shared=shared)
        linked = _is_linked(path, descriptor)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError as error:
        os.close(descriptor)
        raise from_os_error(error, path) from error
    if not linked:
        os.close(descriptor)
        return None
    return descriptor


def _is_linked(path: Path, descriptor: int) -> bool:
    """Return whether the open file still has this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
