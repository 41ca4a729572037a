"""Check quickly whether a run can write to its store."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from mmindex.core.errors import CannotCreateError, PermissionDeniedError, os_errors
from mmindex.core.system import require_stores
from mmindex.store.layout import Layout
from mmindex.store.publish import StagedFile


def require_writable(root: Path) -> None:
    """Check that a store can be created or written at a path, without changing anything.

    Raises:
        PermissionDeniedError: no permission, or the file system is mounted read-only.
        CannotCreateError: something that is not a folder is in the way.
    """
    require_stores()
    layout = Layout(root.absolute())
    if not layout.root.exists():
        _require(_nearest(layout.root))
        return
    for folder in (layout.root, *layout.directories):
        if folder.exists() or folder.is_symlink():
            _require(folder)


def _nearest(path: Path) -> Path:
    """Return the closest existing folder above a path."""
    return next(parent for parent in path.parents if parent.exists() or parent.is_symlink())


def _require(folder: Path) -> None:
    if not folder.is_dir():
        raise CannotCreateError(f"{folder}: not a folder", "choose another `store`")
    with os_errors(folder):
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise PermissionDeniedError(
                f"{folder}: the file system is mounted read-only", "choose another `store`"
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def probe(layout: Layout) -> None:
    """Write and remove one byte, because permissions do not show quotas and broken disks.

    Args:
        layout: a store whose writer lock is held.

    Raises:
        StorageError: the disk is full or broken.
    """
    with StagedFile(layout) as staged:
        staged.write(b"\n")
        staged.flush()


def free_bytes(root: Path) -> int:
    """Return the number of bytes that can be written at ``root``, which need not exist."""
    place = root if root.exists() else _nearest(root)
    with os_errors(place):
        return shutil.disk_usage(place).free
