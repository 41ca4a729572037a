"""Staging folders.

The writer stages files in ``staging/`` itself, under the store's lock. Processes that write objects
without that lock (parts of an encoding, workers of a cluster) each have their own folder there.
They hold it with flock on a file beside it, so that writers, which empty ``staging/``, keep it as
long as its holder is alive.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmindex.core.errors import StorageError, os_errors
from mmindex.core.system import lock_file
from mmindex.store import publish
from mmindex.store.layout import Layout

_LOCK = ".lock"
# A writer that empties staging/ can remove a new name; more than once is very unlikely.
_TRIES = 10


@dataclass(frozen=True, slots=True)
class HeldLayout(Layout):
    """A store whose files are staged in a held folder."""

    held: Path

    @property
    def staging_dir(self) -> Path:
        """The held folder."""
        return self.held


@contextmanager
def hold_staging(layout: Layout) -> Iterator[HeldLayout]:
    """Hold a folder below ``staging/`` for the block; it is removed at the end.

    Raises:
        StorageError: it cannot be created or locked.
    """
    folder, descriptor = _take(layout)
    try:
        with os_errors(folder):
            folder.mkdir()
        yield HeldLayout(layout.root, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _lock_of(folder).unlink(missing_ok=True)
        os.close(descriptor)


def clear_staging(layout: Layout) -> int:
    """Remove entries that nobody holds and return their number; called under the writer's lock."""
    with ExitStack() as locks:
        free: dict[Path, bool] = {}

        def unwanted(path: Path) -> bool:
            lock = _lock_of(path)
            if lock not in free:  # a folder and its lock are two entries
                free[lock] = _lock_here(lock, locks)
            return free[lock]

        return publish.empty_directory(layout.staging_dir, unwanted)


def is_held(folder: Path) -> bool:
    """Return whether any process holds this folder, as far as this machine can tell."""
    with ExitStack() as locks:
        return not _lock_here(_lock_of(folder), locks)


def _take(layout: Layout) -> tuple[Path, int]:
    for _ in range(_TRIES):
        folder = layout.staging_dir / uuid.uuid4().hex
        if (descriptor := _make_lock(_lock_of(folder))) is not None:
            return folder, descriptor
    raise StorageError(
        f"{layout.staging_dir}: new locks were removed immediately, {_TRIES} times",
        "check whether another program removes files from this folder",
    )


def _make_lock(path: Path) -> int | None:
    """Return the descriptor that holds a new lock file; None if a writer removed it meanwhile."""
    with os_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            lock_file(descriptor)
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
    os.close(descriptor)
    return None


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name.removesuffix(_LOCK) + _LOCK)


def _lock_here(path: Path, locks: ExitStack) -> bool:
    """Take a lock until ``locks`` is closed; return whether it is free or no longer exists."""
    with os_errors(path):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return True
        locks.callback(os.close, descriptor)
        try:
            lock_file(descriptor)
        except BlockingIOError:
            return False
    return True
