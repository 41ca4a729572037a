"""Cache of the files that the last crawl read, so that unchanged files are not read again.

A file counts as unchanged if its URI, size, modification time (ns) and inode are the same as when
it was read. A file that was modified less than two seconds before the crawl began, or later, is not
cached: a change within the clock tick of the file system would go unnoticed (git calls such entries
racy: https://git-scm.com/docs/racy-git). A file whose content was replaced with the same size, time
and inode is not detected; ``--rehash`` reads everything again.

The cache also identifies the crawl that made it, see :mod:`mmindex.crawl.unchanged`.

The cache is an SQLite file next to the manifests. Its memory use does not depend on the number of
files. Its rows have checksums, and it is replaced atomically. It can be deleted at any time: the
next crawl then reads everything.
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
from mmindex.store.purge import DAMAGED, open_stamps

RACY_NS: Final = 2_000_000_000
_COLUMNS: Final = (
    "uri, bytes, mtime_ns, inode, key, width, height, format, size_bytes, fields, sidecar, crc"
)
# The rows are clustered by URI, so a listing in the order of names reads neighbouring pages.
_TABLES: Final = (
    "PRAGMA journal_mode = OFF",  # written to a temporary file and published completely
    "PRAGMA synchronous = OFF",
    "PRAGMA cache_size = -32768",  # KiB
    "CREATE TABLE rules (text)",
    "CREATE TABLE crawls (text)",
    "CREATE TABLE files (uri TEXT PRIMARY KEY, bytes, mtime_ns, inode, key BLOB, width, height,"
    " format, size_bytes, fields, sidecar, crc) WITHOUT ROWID",
)
_FIND: Final = f"SELECT {_COLUMNS} FROM files WHERE uri = ?"  # noqa: S608  # constants
_PUT: Final = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class KnownSidecar:
    """The known facts of a sidecar."""

    stamp: Stamp
    fields: Fields


@dataclass(frozen=True, slots=True)
class Known:
    """The known facts of a file.

    Attributes:
        key: sha256 of the bytes, in hex.
        width: in pixels, from the header.
        height: in pixels.
        format: the format, as named by Pillow.
        size_bytes: the number of bytes.
        fields: the metadata, see :mod:`mmindex.media.photo`.
        sidecar: the sidecar; None if there is none, or if it has not been read.
    """

    key: str
    width: int
    height: int
    format: str
    size_bytes: int
    fields: Fields = field(default_factory=dict)
    sidecar: KnownSidecar | None = None


class Stamps:
    """The cache of the last crawl and the entries of this crawl; a context manager.

    At the end, the entries of this crawl replace the cache. A crawl that ends early, through an
    error or a signal, adds its entries to the cache.

    Args:
        layout: the store; its writer lock must be held.
        rules: the rules of the cache; entries with other rules are not used.
        distrust: do not use the existing entries.
    """

    def __init__(self, layout: Layout, rules: str, *, distrust: bool = False) -> None:
        self._target = layout.stamps_file
        self._scratch: Path = layout.staging_dir / f"{uuid.uuid4().hex}.sqlite"
        self._newest_ns = time.time_ns() - RACY_NS
        self._before = None if distrust else _open(self._target, rules)
        self._found = self._missed = self._added = 0
        self._crawl = ""
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
            if kind is None:  # otherwise the first error is the one to report
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
        """Return the known facts of a file with this stamp, and of its sidecar."""
        if self._before is None:
            return None
        try:
            row = self._before.execute(_FIND, (uri,)).fetchone()
        except DAMAGED as error:
            _warn(self._target, error)
            self._before.close()
            self._before = None
            return None
        if row is None or row[1:4] != _stamped(stamp) or row[-1] != _crc(row[:-1]):
            self._missed += 1
            return None
        told = _sidecar(row[10])
        if (None if told is None else told.stamp) != sidecar:
            self._missed += 1  # the image has not changed, but there is new data to write
            told = None
        self._found += 1
        width, height, image_format, size_bytes, fields = row[5:10]
        key = row[4].hex()
        return Known(key, width, height, image_format, size_bytes, unpack(fields), told)

    def add(self, uri: str, stamp: Stamp, known: Known) -> None:
        """Add a file, unless a change could go unnoticed.

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

    def identify(self, crawl: str) -> None:
        """Record the identity of this crawl; call it at the end.

        Raises:
            StorageError: the disk is full.
        """
        try:
            self._now.execute("INSERT INTO crawls VALUES (?)", (crawl,))
        except sqlite3.Error as error:
            raise _storage_error(error) from error
        self._crawl = crawl

    def _packed(self, sidecar: KnownSidecar | None) -> str:
        if sidecar is None or sidecar.stamp[1] >= self._newest_ns:
            return ""
        return f"{' '.join(map(str, sidecar.stamp))} {pack(sidecar.fields)}"

    def _nothing_new(self) -> bool:
        """Return whether the existing cache already contains everything."""
        if self._before is None or self._missed or self._found != self._added:
            return False
        try:
            (rows,) = self._before.execute("SELECT count(*) FROM files").fetchone()
            same = self._crawl == _last_crawl(self._before)
        except DAMAGED as error:
            _warn(self._target, error)
            return False
        return bool(rows == self._added and same)

    def _publish(self, *, keep_rest: bool) -> None:
        if not keep_rest and self._nothing_new():
            return
        try:
            if keep_rest and self._before is not None:
                rest = self._before.execute(f"SELECT {_COLUMNS} FROM files")  # noqa: S608
                self._now.executemany(_PUT.replace("REPLACE", "IGNORE"), rest)
            self._now.execute("COMMIT")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _storage_error(error) from error
        self._close()
        with os_errors(self._scratch):
            size = self._scratch.stat().st_size
        with PartialFile(self._scratch, size) as file:
            file.publish(self._target)


def _open(path: Path, rules: str) -> sqlite3.Connection | None:
    """Open the cache of the last crawl if it is intact and has the same rules."""
    if not path.is_file():
        return None
    try:
        database = open_stamps(path)
    except DAMAGED as error:
        _warn(path, error)
        return None
    try:
        database.execute("PRAGMA cache_size = -32768")
        if database.execute("SELECT text FROM rules").fetchone() == (rules,):
            return database
    except DAMAGED as error:
        _warn(path, error)
    database.close()
    return None


def last_crawl(layout: Layout, rules: str) -> str:
    """Return the identity of the last crawl with these rules; empty if it is unknown."""
    database = _open(layout.stamps_file, rules)
    if database is None:
        return ""
    try:
        return _last_crawl(database)
    except DAMAGED as error:
        _warn(layout.stamps_file, error)
        return ""
    finally:
        database.close()


def _last_crawl(database: sqlite3.Connection) -> str:
    # Caches of earlier versions of mmindex do not have this table.
    tables = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'crawls'").fetchone()
    row = database.execute("SELECT text FROM crawls").fetchone() if tables else None
    return "" if row is None else str(row[0])


def _warn(path: Path, error: Exception) -> None:
    get_logger("crawl").warning(
        "the cache of unchanged files cannot be read: all files are read again",
        file=path.name,
        why=str(error),
    )


def _sidecar(text: str) -> KnownSidecar | None:
    """Parse a stored sidecar: its stamp, then its fields."""
    if not text:
        return None
    size, mtime_ns, inode, fields = text.split(" ", 3)
    return KnownSidecar((int(size), int(mtime_ns), int(inode)), unpack(fields))


def _stamped(stamp: Stamp) -> tuple[int, int, int]:
    """Convert a stamp for SQLite, because inodes are unsigned 64-bit numbers."""
    size, mtime_ns, inode = stamp
    return size, mtime_ns, inode - (1 << 64) if inode >= 1 << 63 else inode


def _crc(row: tuple[Any, ...]) -> int:
    return zlib.crc32(repr(row).encode("utf-8", "surrogatepass"))


def _storage_error(error: Exception) -> StorageError:
    return StorageError(
        f"the cache of unchanged files cannot be written: {error}",
        "free some disk space, or choose another `store`",
    )
