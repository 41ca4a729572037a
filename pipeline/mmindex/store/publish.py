"""The only module that writes, fsyncs, renames or removes files inside a store.

Every file is written under a temporary name (O_EXCL, same file system), counted, hashed, fsynced
and renamed, and its directory is fsynced: after a power loss, the final name has the whole content
or does not exist. A failed fsync is never retried: the kernel may have dropped the dirty pages
(https://wiki.postgresql.org/wiki/Fsync_Errors), so the run ends with an I/O error.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmindex.core.errors import InternalError, StorageError, os_errors
from mmindex.store.layout import Layout

_BUFFER_BYTES = 1 << 20  # large enough that system calls take little time compared with hashing


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Create ``path`` and its missing parents, each made durable in its parent."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        with os_errors(directory):
            directory.mkdir(exist_ok=True)
            sync_directory(directory.parent)


class StagedFile:
    """A binary file under a temporary name; :meth:`publish` gives it the final name.

    It can be used like any writable binary file object (pyarrow, zipfile, faiss callbacks). It
    counts and hashes the bytes written. Leaving the context without publishing removes the file.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._path = layout.staging_dir / f"{uuid.uuid4().hex}.tmp"
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self._abandoned = False
        with os_errors(self._path):
            self._file = self._path.open("xb", buffering=_BUFFER_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A second error (closing flushes, which fails again on a full disk) must not hide the
        # first.
        self._abandoned = error is not None
        try:
            self._file.close()
        except OSError:
            if error is None:
                raise
        self._path.unlink(missing_ok=True)

    @property
    def closed(self) -> bool:
        """Whether the file is closed; pyarrow reads this."""
        return self._file.closed

    @property
    def sha256(self) -> str:
        """The hex digest of everything written so far."""
        return self._hash.hexdigest()

    def writable(self) -> bool:
        """Return True, for zipfile and pyarrow."""
        return True

    def readable(self) -> bool:
        """Return False: hashed bytes must not be read back before they are durable."""
        return False

    def seekable(self) -> bool:
        """Return False: the hash depends on sequential writes."""
        return False

    def tell(self) -> int:
        """Return the number of bytes written so far."""
        return self.size_bytes

    def flush(self) -> None:
        """Pass buffered bytes to the kernel."""
        with os_errors(self._path):
            self._file.flush()

    def write(self, data: Any) -> int:
        """Write a whole bytes-like object.

        After an error or a signal has ended the block, nothing is written: a writer that was
        interrupted may write its footer when it is destroyed.

        Raises:
            StorageError: the disk is full or the write failed.
        """
        view = memoryview(data).cast("B")
        if self._abandoned:
            return view.nbytes
        with os_errors(self._path):
            written = self._file.write(view)
        if written != view.nbytes:
            raise StorageError(f"short write to {self._path}: {written} of {view.nbytes} bytes")
        self._hash.update(view)
        self.size_bytes += view.nbytes
        return written

    def close(self) -> None:
        """Do nothing: writers such as pyarrow close their file, but it is published later."""

    def publish(self, target: Path) -> None:
        """Make the content durable and rename it to ``target``, replacing an existing file.

        Raises:
            StorageError: a step failed; ``target`` is then unchanged.
        """
        with os_errors(target):
            self._file.flush()
            on_disk = os.fstat(self._file.fileno()).st_size
            if on_disk != self.size_bytes:
                raise StorageError(f"{self._path} has {on_disk} bytes, wrote {self.size_bytes}")
            os.fsync(self._file.fileno())
            self._file.close()
            make_directory(target.parent)
            self._path.replace(target)
            sync_directory(target.parent)

    def publish_object(self) -> str:
        """Publish under the content's sha256 and return it.

        An existing object is replaced by the same bytes, which repairs silent damage.
        """
        digest = self.sha256
        self.publish(self._layout.object(digest))
        return digest


class PartialFile:
    """A download that grows over several runs and gets its final name when it is complete.

    Unlike a :class:`StagedFile`, it remains when the process exits. A caller that resumes must know
    how many of its bytes are valid: those up to the last :meth:`sync`.

    Args:
        path: the file; created if it does not exist.
        keep_bytes: the number of valid bytes; the rest is removed.
    """

    def __init__(self, path: Path, keep_bytes: int) -> None:
        self._path = path
        with os_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            self._file = os.fdopen(descriptor, "r+b", buffering=_BUFFER_BYTES)
            if os.fstat(descriptor).st_size < keep_bytes:
                self._file.close()
                raise StorageError(f"{path} is shorter than {keep_bytes} bytes", "remove it")
            self._cut(keep_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._file.close()
        except OSError:
            if kind is None:
                raise

    def _cut(self, size: int) -> None:
        self._file.flush()
        self._file.truncate(size)
        self._file.seek(size)
        self.size_bytes = size

    def restart(self) -> None:
        """Start again at the first byte."""
        with os_errors(self._path):
            self._cut(0)

    def write(self, data: bytes) -> None:
        """Append all of ``data``.

        Raises:
            StorageError: the disk is full or the write failed.
        """
        with os_errors(self._path):
            written = self._file.write(data)
        if written != len(data):
            raise StorageError(f"short write to {self._path}: {written} of {len(data)} bytes")
        self.size_bytes += len(data)

    def sync(self) -> int:
        """Make the written bytes durable and return their number.

        Raises:
            StorageError: the disk is full or the write failed.
        """
        with os_errors(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        return self.size_bytes

    def publish(self, target: Path) -> None:
        """Make the content durable and rename it to ``target``.

        Raises:
            StorageError: a step failed.
        """
        self.sync()
        with os_errors(target):
            self._file.close()
            self._path.replace(target)
            sync_directory(target.parent)


def write_file(layout: Layout, target: Path, content: bytes) -> None:
    """Replace a small file atomically and durably."""
    with StagedFile(layout) as staged:
        staged.write(content)
        staged.publish(target)


@contextmanager
def staged_directory(layout: Layout, target: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to ``target`` if the block ends without an error.

    Every file inside is fsynced before the rename; ``target`` must not exist yet.
    """
    aside = layout.staging_dir / uuid.uuid4().hex
    with filled_aside(aside, target):
        yield aside
        if target.exists():
            raise InternalError(f"{target} exists already")


@contextmanager
def filled_aside(aside: Path, target: Path) -> Iterator[None]:
    """Create the folder ``aside`` and rename it to ``target`` if the block ends without an error.

    Every file inside is fsynced before the rename. Both must be on one file system; ``target`` may
    be an empty folder. It is also used for folders outside stores.

    Raises:
        StorageError: the disk is full, or an I/O error occurs.
    """
    make_directory(aside)
    try:
        yield
        with os_errors(target):
            _sync_tree(aside)
            make_directory(target.parent)
            aside.replace(target)
            sync_directory(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            with (Path(folder) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(folder))


def remove_file(path: Path) -> None:
    """Remove a file durably; do nothing if it does not exist."""
    remove_files([path])


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files durably, syncing each folder once; missing files are ignored."""
    folders: dict[Path, None] = {}
    for path in paths:
        with os_errors(path):
            path.unlink(missing_ok=True)
        folders[path.parent] = None
    for folder in folders:
        with os_errors(folder):
            sync_directory(folder)


def empty_directory(path: Path, unwanted: Callable[[Path], bool] = lambda _: True) -> int:
    """Remove the ``unwanted`` entries in ``path`` and return their number."""
    with os_errors(path):
        entries = [entry for entry in path.iterdir() if unwanted(entry)]
        for entry in entries:
            remove: Callable[[Path], object] = (
                shutil.rmtree if entry.is_dir() and not entry.is_symlink() else Path.unlink
            )
            with suppress(FileNotFoundError):  # another process removed it meanwhile
                remove(entry)
        if entries:
            sync_directory(path)
    return len(entries)
