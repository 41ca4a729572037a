"""Replace files outside stores atomically: readers see the old or the new content, never a part.

Files inside stores are written by :mod:`mmindex.store.publish`.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mmindex.core.errors import CannotCreateError
from mmindex.core.system import process_exists

_LONGEST = 100  # bytes of the name that the temporary name repeats; a name can have 255
_ASIDE: Final = re.compile(r"\.(?P<pid>[0-9]{1,10})\.[0-9a-f]{32}\.tmp")


def sync_path(path: Path) -> None:
    """Write a file's content, or the names in a folder, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_target(path: Path) -> None:
    """Check that a file can have this name, before a long run starts.

    Raises:
        CannotCreateError: the folder does not exist, or ``path`` is a folder.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise CannotCreateError(f"{path}: cannot be created", "use a file in an existing folder")


@contextmanager
def file_aside(target: Path) -> Iterator[Path]:
    """Yield the path of a new file that replaces ``target`` if the block ends without an error.

    The file is fsynced before it gets its name. Temporary files for ``target`` that killed
    processes have left are removed.

    Raises:
        OSError: no permission, the disk is full, or an I/O error occurs.
    """
    aside = target.with_name(f"{_prefix(target)}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    for leftover in _leftovers(target):
        leftover.unlink(missing_ok=True)
    try:
        yield aside
        sync_path(aside)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _prefix(target: Path) -> str:
    return f".{os.fsdecode(os.fsencode(target.name)[:_LONGEST])}"


def _leftovers(target: Path) -> Iterator[Path]:
    prefix = _prefix(target)
    for other in target.parent.iterdir():
        if other.name.startswith(prefix):
            match = _ASIDE.fullmatch(other.name.removeprefix(prefix))
            if match and not process_exists(int(match["pid"])):
                yield other
