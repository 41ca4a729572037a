"""Check the file system of a store: locks, renames, fsync and mount options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmindex.core.errors import MmindexError, reason_of
from mmindex.core.system import lock_file
from mmindex.store.publish import sync_directory
from mmindex.upkeep.finding import Finding, State

_LOCKS, _RENAMES, _FSYNC, _MOUNT = "file locks", "renames", "fsync", "file system"
# Another process, because some file systems let one process lock a file twice.
_TRY: Final = """\
import fcntl, sys
with open(sys.argv[1]) as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(3)
"""
_HELD: Final = 3
_TIMEOUT_S: Final = 30
_SLOW_FSYNC_S: Final = 0.2  # publishing a version needs about 50
_MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_NFS: Final = ("nfs", "nfs4")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system.

    Attributes:
        point: its mount point.
        kind: its type, such as ``ext4`` or ``nfs4``.
        options: the options of the mount and of the file system.
    """

    point: str
    kind: str
    options: frozenset[str]


def check_disk(folder: Path) -> Iterator[Finding]:
    """Check the file system of an existing folder that can be written; leaves no files behind."""
    yield _told(mount_of(folder))
    try:
        with tempfile.TemporaryDirectory(prefix=".mmindex-doctor-", dir=folder) as scratch:
            yield _checked(_LOCKS, _locks, Path(scratch))
            yield _checked(_RENAMES, _renames, Path(scratch))
            yield _checked(_FSYNC, _fsync, Path(scratch))
    except OSError as error:
        yield Finding(_LOCKS, State.BROKEN, f"{folder}: nothing can be written: {reason_of(error)}")


def mount_of(folder: Path, mounts: Path = _MOUNTS) -> Mount | None:
    """Return the mount that contains a folder; None if unknown."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real, best = os.path.realpath(folder), None
    for line in lines:
        before, _, after = line.partition(" - ")
        one, other = before.split(" "), after.split(" ")
        if len(one) < 6 or len(other) < 3:
            continue
        point = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), one[4])
        inside = real == point or real.startswith(f"{point.rstrip('/')}/")
        # A later mount hides an earlier one at the same place.
        if inside and (best is None or len(point) >= len(best.point)):
            options = frozenset(f"{one[5]},{other[2]}".split(","))
            best = Mount(point, other[0], options)
    return best


def _told(mount: Mount | None) -> Finding:
    if mount is None:
        return Finding(_MOUNT, State.NOTE, "unknown: the system does not list its mounts")
    shown = f"{mount.kind} at {mount.point}"
    if why := local_locks(mount):
        detail = f"{shown}: {why}; do not write to the store from several machines"
        return Finding(_MOUNT, State.NOTE, detail)
    return Finding(_MOUNT, State.OK, shown)


def local_locks(mount: Mount) -> str:
    """Return why other machines do not see locks on a network file system; empty if they do."""
    if mount.kind in _NFS:
        for option in ("nolock", "local_lock=flock", "local_lock=all"):
            if option in mount.options:
                return f"mounted with {option}, so locks are valid on this machine only"
    if mount.kind == "lustre" and "flock" not in mount.options:
        return "mounted without flock, so locks are valid on this machine at most"
    if mount.kind.startswith("fuse.") or mount.kind in ("9p", "virtiofs", "cifs", "smb3"):
        return "whether other machines see its locks depends on its driver"
    return ""


def _checked(what: str, check: object, scratch: Path) -> Finding:
    try:
        return check(scratch)  # type: ignore[operator,no-any-return]
    except MmindexError as error:
        return Finding(what, State.BROKEN, error.message)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(what, State.BROKEN, f"do not work here: {reason_of(error)}")


def _locks(scratch: Path) -> Finding:
    path = scratch / "lock"
    with path.open("w") as file:
        lock_file(file.fileno())
        if _try(path) != _HELD:
            detail = "a second process gets a lock that is held: choose another file system"
            return Finding(_LOCKS, State.BROKEN, detail)
    if _try(path) != 0:
        detail = "a lock stays after its holder has ended: choose another file system"
        return Finding(_LOCKS, State.BROKEN, detail)
    return Finding(_LOCKS, State.OK, "held between processes, and released (flock)")


def _try(path: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-I", "-c", _TRY, str(path)], timeout=_TIMEOUT_S, check=False
    )
    return done.returncode


def _renames(scratch: Path) -> Finding:
    old, new = scratch / "old", scratch / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    with old.open("rb") as reader:
        new.replace(old)
        kept = reader.read() == b"old"
    if old.read_bytes() != b"new" or new.exists():
        return Finding(_RENAMES, State.BROKEN, "do not replace a file: choose another file system")
    if not kept:
        return Finding(_RENAMES, State.BROKEN, "change files that are open: choose another one")
    return Finding(_RENAMES, State.OK, "replace a file at once; open files keep their content")


def _fsync(scratch: Path) -> Finding:
    started = time.perf_counter()
    with (scratch / "file").open("wb") as file:
        file.write(b"x" * 4096)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(scratch)
    seconds = time.perf_counter() - started
    state = State.NOTE if seconds > _SLOW_FSYNC_S else State.OK
    return Finding(_FSYNC, state, f"of a file and its folder: {1000 * seconds:.1f} ms")
