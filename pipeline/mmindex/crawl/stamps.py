"""What the last crawl read, by file: so that an unchanged file is not read again.

A file is taken to be unchanged if its URI, size, modification time (ns) and inode are those it had
when it was read. One that was modified less than two seconds before that crawl began, or later,
is not remembered: a change within the file system's clock tick would not show (git calls such
entries racy: https://git-scm.com/docs/racy-git). What this cannot see is a file whose content was
replaced with size, time and inode kept: reading everything again (``--rehash``) finds that.

One SQLite file beside the manifests: looked up row by row and page by page, it costs the same
memory for ten million files as for ten. Its rows carry a checksum, it is replaced as a whole, and
it can be deleted at any time: the next crawl then reads everything.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from mmindex.core.errors import StorageError, os_errors
from mmindex.core.progress import get_logger
from mmindex.core.records import Stamp
from mmindex.media.photo import Fields, pack, unpack
from mmindex.store.layout import Layout
from mmindex.store.publish import PartialFile
from mmindex.store.purge import open_stamps

_RACY_NS: Final = 2_000_000_000
_COLUMNS: Final = (
    "uri, bytes, mtime_ns, inode, key, width, height, format, size_bytes, fields, sidecar, crc"
)
# The rows are clustered by URI: a listing in the order of names touches neighbouring pages.
_TABLES: Final = (
    "PRAGMA journal_mode = OFF",  # written aside and published whole
    "PRAGMA synchronous = OFF",
    "PRAGMA cache_size = -32768",  # KiB
    "CREATE TABLE rules (text)",
    "CREATE TABLE files (uri TEXT PRIMARY KEY, bytes, mtime_ns, inode, key BLOB, width, height,"
    " format, size_bytes, fields, sidecar, crc) WITHOUT ROWID",
)
_FIND: Final = f"SELECT {_COLUMNS} FROM files WHERE uri = ?"  # noqa: S608  # constants
_PUT: Final = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class KnownSidecar:
    """What reading a sidecar told."""

    stamp: Stamp
    fields: Fields


@dataclass(frozen=True, slots=True)
class Known:
    """What reading a file told.

    Attributes:
        key: sha256 of its bytes, in hex.
        width: in pixels, as the header says.
        height: in pixels.
        format: as Pillow calls it.
        size_bytes: length of the image's bytes.
        fields: what is written in it, see :mod:`mmindex.media.photo`.
        sidecar: what the file that describes it says; None where there is none, or where it has
            not been read.
    """

    key: str
    width: int
    height: int
    format: str
    size_bytes: int
    fields: Fields = field(default_factory=dict)
    sidecar: KnownSidecar | None = None


class Stamps:
    """What was known before, and what this crawl learns; use as a context manager.

    Leaving it makes what this crawl learned what the next one knows. A crawl that ends early, by
    an error or a signal, adds what it read to what was known.

    Args:
        layout: the store; its writer lock must be held.
        rules: what a file had to pass to be remembered; under other rules nothing is known.
        distrust: know nothing from before.
    """

    def __init__(self, layout: Layout, rules: str, *, distrust: bool = False) -> None:
        self._target = layout.stamps_file
        self._scratch: Path = layout.staging_dir / f"{uuid.uuid4().hex}.sqlite"
        self._newest_ns = time.time_ns() - _RACY_NS
        self._before = None if distrust else _open(self._target, rules)
        self._found = self._missed = self._added = 0
        try:
            self._now = sqlite3.connect(self._scratch, isolation_level=None)
            for statement in _TABLES:
                self._now.execute(statement)
            self._now.execute("BEGIN")
            self._now.execute("INSERT INTO rules VALUES (?)", (rules,))
        except sqlite3.Error as error:
            raise _storage_error(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or not issubclass(kind, StorageError):
                self._publish(keep_rest=kind is not None)
        except StorageError:
            if kind is None:  # otherwise the first error is the one to see
                raise
        finally:
            self._close()
            self._scratch.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._before is not None:
            self._before.close()
            self._before = None
        self._now.close()

    def find(self, uri: str, stamp: Stamp, sidecar: Stamp | None = None) -> Known | None:
        """What is known of a file that still has this stamp, and of a sidecar that has its own."""
        if self._before is None:
            return None
        try:
            row = self._before.execute(_FIND, (uri,)).fetchone()
        except sqlite3.DatabaseError as error:
            _warn(self._target, error)
            self._before.close()
            self._before = None
            return None
        if row is None or row[1:4] != _stamped(stamp) or row[-1] != _crc(row[:-1]):
            self._missed += 1
            return None
        told = _sidecar(row[10])
        if (None if told is None else told.stamp) != sidecar:
            self._missed += 1  # the image is as it was, but there is something new to write
            told = None
        self._found += 1
        width, height, image_format, size_bytes, fields = row[5:10]
        key = row[4].hex()
        return Known(key, width, height, image_format, size_bytes, unpack(fields), told)

    def add(self, uri: str, stamp: Stamp, known: Known) -> None:
        """Remember a file, unless a change of it could go unseen.

        Raises:
            StorageError: the disk is full.
        """
        if stamp[1] >= self._newest_ns:
            return
        found = (bytes.fromhex(known.key), known.width, known.height, known.format)
        more = (known.size_bytes, pack(known.fields), self._packed(known.sidecar))
        row = (uri, *_stamped(stamp), *found, *more)
        try:
            self._now.execute(_PUT, (*row, _crc(row)))
        except sqlite3.Error as error:
            raise _storage_error(error) from error
        self._added += 1

    def _packed(self, sidecar: KnownSidecar | None) -> str:
        if sidecar is None or sidecar.stamp[1] >= self._newest_ns:
            return ""
        return f"{' '.join(map(str, sidecar.stamp))} {pack(sidecar.fields)}"

    def _nothing_new(self) -> bool:
        """Whether the file that is there says all that this crawl would write."""
        if self._before is None or self._missed or self._found != self._added:
            return False
        try:
            (rows,) = self._before.execute("SELECT count(*) FROM files").fetchone()
        except sqlite3.DatabaseError as error:
            _warn(self._target, error)
            return False
        return bool(rows == self._added)

    def _publish(self, *, keep_rest: bool) -> None:
        if not keep_rest and self._nothing_new():
            return
        try:
            if keep_rest and self._before is not None:
                rest = self._before.execute(f"SELECT {_COLUMNS} FROM files")  # noqa: S608
                self._now.executemany(_PUT.replace("REPLACE", "IGNORE"), rest)
            self._now.execute("COMMIT")
        except sqlite3.Error as error:
            raise _storage_error(error) from error
        self._close()
        with os_errors(self._scratch):
            size = self._scratch.stat().st_size
        with PartialFile(self._scratch, size) as file:
            file.publish(self._target)


def _open(path: Path, rules: str) -> sqlite3.Connection | None:
    """The last crawl's file, if it is sound and was written under the same rules."""
    if not path.is_file():
        return None
    try:
        database = open_stamps(path)
    except sqlite3.DatabaseError as error:
        _warn(path, error)
        return None
    try:
        database.execute("PRAGMA cache_size = -32768")
        if database.execute("SELECT text FROM rules").fetchone() == (rules,):
            return database
    except sqlite3.DatabaseError as error:
        _warn(path, error)
    database.close()
    return None


def _warn(path: Path, error: sqlite3.Error) -> None:
    get_logger("crawl").warning(
        "the cache of unchanged files cannot be read: all files are read again",
        file=path.name,
        why=str(error),
    )


def _sidecar(text: str) -> KnownSidecar | None:
    """A sidecar as it was kept: its stamp, then its fields."""
    if not text:
        return None
    size, mtime_ns, inode, fields = text.split(" ", 3)
    return KnownSidecar((int(size), int(mtime_ns), int(inode)), unpack(fields))


def _stamped(stamp: Stamp) -> tuple[int, int, int]:
    """A stamp as SQLite can hold it: inodes have 64 bits without a sign."""
    size, mtime_ns, inode = stamp
    return size, mtime_ns, inode - (1 << 64) if inode >= 1 << 63 else inode


def _crc(row: tuple[Any, ...]) -> int:
    return zlib.crc32(repr(row).encode("utf-8", "surrogatepass"))


def _storage_error(error: sqlite3.Error) -> StorageError:
    return StorageError(
        f"the cache of unchanged files cannot be written: {error}",
        "free some disk space, or choose another `store`",
    )
