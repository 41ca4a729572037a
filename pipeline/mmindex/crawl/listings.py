"""Cache of what the last crawl read in files of object stores, besides the images.

The headers of an archive, the captions of a table and the sidecars of a folder are not read again
while the ETag of the file, or of every object in the folder, is the same. The cache is an SQLite
file next to the manifests, like that of :mod:`mmindex.crawl.stamps`; it can be deleted at any time.

It has captions, so it must contain nothing of forgotten images: rows with a forgotten id are left
out, and if an image has forgotten bytes under another id, nothing is kept.
"""

from __future__ import annotations

import functools
import json
import sqlite3
import uuid
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Final, Self

from mmindex.core.errors import InternalError, StorageError, os_errors
from mmindex.core.progress import get_logger
from mmindex.core.records import (
    Expected,
    Ignored,
    Note,
    NoteKind,
    Reason,
    Rejected,
    Sidecar,
    Skip,
    SourceEvent,
    SourceItem,
    Stamp,
)
from mmindex.crawl.tally import storable
from mmindex.media.files import uri_of_location
from mmindex.media.uris import read_uri
from mmindex.store import publish
from mmindex.store.forgotten import Forgotten
from mmindex.store.layout import Layout
from mmindex.store.purge import DAMAGED, open_stamps

_CHUNK: Final = 4_096  # events: a few hundred kilobytes before compression
_TABLES: Final = (
    "PRAGMA journal_mode = OFF",  # written to a temporary file, then renamed
    "PRAGMA synchronous = OFF",
    "CREATE TABLE rules (text)",
    "CREATE TABLE units (unit TEXT PRIMARY KEY, fingerprint TEXT, chunks) WITHOUT ROWID",
    "CREATE TABLE chunks (unit TEXT, number, events BLOB, PRIMARY KEY (unit, number))"
    " WITHOUT ROWID",
)


class Listings:
    """The cache of the last crawl and the entries of this crawl; a context manager.

    At the end, the entries of this crawl replace the cache. A crawl that ends early adds its
    entries to the cache. Nothing is written if no source is in an object store.

    Args:
        layout: the store; its writer lock must be held.
        rules: the rules of the cache; entries with other rules are not used.
        max_bytes: the size limit of an image.
        forgotten: items that must not be kept.
        distrust: do not use the existing entries.
    """

    def __init__(
        self, layout: Layout, rules: str, max_bytes: int, forgotten: Forgotten, *, distrust: bool
    ) -> None:
        self._target = layout.listings_file
        self._scratch = layout.staging_dir / f"{uuid.uuid4().hex}.sqlite"
        self._rules = rules
        self._max_bytes = max_bytes
        self._forgotten = forgotten
        self._keeps = True
        self._before = None if distrust else _open(self._target, rules)
        self._now: sqlite3.Connection | None = None
        self._is_new = distrust

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if not self._keeps:
                self._remove()
            elif kind is None or not issubclass(kind, StorageError):
                self._publish(keep_rest=kind is not None)
        finally:
            for database in (self._before, self._now):
                if database is not None:
                    database.close()
            self._scratch.unlink(missing_ok=True)

    def keep_nothing(self) -> None:
        """Leave no cache behind: something that was read is forgotten."""
        self._keeps = False

    def events(
        self, unit: str, fingerprint: str, ids: str, read: Callable[[], Iterator[SourceEvent]]
    ) -> Iterator[SourceEvent]:
        """Yield the events of a unit, see :class:`mmindex.sources.base.Listings`."""
        now = self._scratch_database()
        chunks = self._known(unit, fingerprint)
        if chunks is not None:
            for number in range(chunks):
                packed = self._chunk(unit, number)
                _put(now, "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?)", (unit, number, packed))
                yield from (self._event(fields) for fields in json.loads(zlib.decompress(packed)))
        else:
            self._is_new = True
            chunks = yield from self._recorded(now, unit, self._without_forgotten(ids, read()))
        if chunks is not None:
            row = (unit, fingerprint, chunks)
            _put(now, "INSERT OR REPLACE INTO units VALUES (?, ?, ?)", row)

    def _without_forgotten(self, ids: str, events: Iterator[SourceEvent]) -> Iterator[SourceEvent]:
        for event in events:
            match event:
                case SourceItem() | Rejected() if self._forgotten.has_id(
                    storable(f"{ids}/{event.image_id}")
                ):
                    yield Ignored(Skip.FORGOTTEN)
                case _:
                    yield event

    def _recorded(
        self, now: sqlite3.Connection, unit: str, events: Iterator[SourceEvent]
    ) -> Generator[SourceEvent, None, int | None]:
        """Yield events and record them; return the number of chunks, None if that is impossible."""
        inside = uri_of_location(unit)
        possible, number = True, 0
        waiting: list[list[Any]] = []

        def store() -> None:
            text = json.dumps(waiting).encode()
            row = (unit, number, zlib.compress(text, 1))
            _put(now, "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?)", row)
            waiting.clear()

        for event in events:
            # An image next to its table can change while the table does not.
            possible = possible and _is_inside(event, inside)
            if possible:
                waiting.append(_fields(event))
                if len(waiting) == _CHUNK:
                    store()
                    number += 1
            yield event
        if possible and waiting:
            store()
            number += 1
        return number if possible else None

    def _event(self, fields: list[Any]) -> SourceEvent:
        mark, *rest = fields
        match mark:
            case "item":
                return self._item(*rest)
            case "rejected":
                image_id, uri, reason, detail = rest
                return Rejected(image_id, uri, Reason(reason), detail)
            case "ignored":
                why, count, suffix = rest
                return Ignored(Skip(why), count, suffix)
            case "note":
                return Note(NoteKind(rest[0]), rest[1])
            case _:
                return Expected(*rest)

    def _item(
        self,
        image_id: str,
        uri: str,
        split: str,
        captions: list[str],
        metadata: dict[str, Any],
        stamp: list[int],
        is_row: bool,
        name: str,
        beside: list[Any] | None,
    ) -> SourceItem:
        sidecar = None
        if beside is not None:
            where, its = beside
            sidecar = Sidecar(functools.partial(read_uri, where), _stamp(its), where)
        return SourceItem(
            image_id=image_id,
            uri=uri,
            split=split,
            captions=tuple(captions),
            read=functools.partial(read_uri, uri, self._max_bytes),
            metadata=metadata,
            stamp=_stamp(stamp),
            is_row=is_row,
            name=name,
            sidecar=sidecar,
        )

    def _scratch_database(self) -> sqlite3.Connection:
        if self._now is None:
            try:
                self._now = sqlite3.connect(self._scratch, isolation_level=None)
                for statement in _TABLES:
                    self._now.execute(statement)
                self._now.execute("BEGIN")
            except sqlite3.Error as error:
                raise _storage_error(error) from error
            _put(self._now, "INSERT INTO rules VALUES (?)", (self._rules,))
        return self._now

    def _known(self, unit: str, fingerprint: str) -> int | None:
        """Return the number of chunks of an unchanged unit, if all of them are intact."""
        if self._before is None:
            return None
        query = "SELECT chunks FROM units WHERE unit = ? AND fingerprint = ?"
        try:
            row = self._before.execute(query, (unit, fingerprint)).fetchone()
            if row is None:
                return None
            for number in range(row[0]):
                zlib.decompress(self._chunk(unit, number))  # verifies its checksum
        except (*DAMAGED, zlib.error) as error:
            _warn(self._target, error)
            self._before.close()
            self._before = None
            return None
        return int(row[0])

    def _chunk(self, unit: str, number: int) -> bytes:
        if self._before is None:
            raise InternalError(f"{unit}: the cache was closed while it was read")
        query = "SELECT events FROM chunks WHERE unit = ? AND number = ?"
        row = self._before.execute(query, (unit, number)).fetchone()
        return row[0] if row is not None else b""

    def _remove(self) -> None:
        if self._target.exists():
            publish.remove_file(self._target)

    def _publish(self, *, keep_rest: bool) -> None:
        if self._now is None:
            if not keep_rest:
                self._remove()  # no source is in an object store now
            return
        if not self._is_new and not keep_rest and self._before is not None:
            counts = [one.execute("SELECT count(*) FROM units").fetchone()
                      for one in (self._before, self._now)]  # fmt: skip
            if counts[0] == counts[1]:
                return
        try:
            if keep_rest and self._before is not None:
                for table, columns in (("units", 3), ("chunks", 3)):
                    rest = self._before.execute(f"SELECT * FROM {table}")  # noqa: S608  # ours
                    marks = ", ".join("?" * columns)
                    self._now.executemany(
                        f"INSERT OR IGNORE INTO {table} VALUES ({marks})",  # noqa: S608  # ours
                        rest,
                    )
            self._now.execute("COMMIT")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _storage_error(error) from error
        self._now.close()
        with os_errors(self._scratch):
            size = self._scratch.stat().st_size
        with publish.PartialFile(self._scratch, size) as file:
            file.publish(self._target)


def _fields(event: SourceEvent) -> list[Any]:
    match event:
        case SourceItem():
            beside = event.sidecar and [event.sidecar.uri, event.sidecar.stamp]
            own = [event.image_id, event.uri, event.split, event.captions, dict(event.metadata)]
            return ["item", *own, event.stamp, event.is_row, event.name, beside]
        case Rejected():
            return ["rejected", event.image_id, event.uri, event.reason, event.detail]
        case Ignored():
            return ["ignored", event.why, event.count, event.suffix]
        case Note():
            return ["note", event.kind, event.count]
        case Expected():
            return ["expected", event.images]
        case _:
            raise InternalError(f"{type(event).__name__} events cannot be kept")


def _is_inside(event: SourceEvent, unit: str) -> bool:
    match event:
        case SourceItem():
            beside = event.sidecar is None or event.sidecar.uri.startswith(unit)
            return event.stamp is not None and event.uri.startswith(unit) and beside
        case Rejected() | Ignored() | Note() | Expected():
            return True
        case _:
            return False


def _stamp(values: list[int]) -> Stamp:
    size, time_ns, number = values
    return size, time_ns, number


def _open(path: Path, rules: str) -> sqlite3.Connection | None:
    if not path.is_file():
        return None
    try:
        database = open_stamps(path)
    except DAMAGED as error:
        _warn(path, error)
        return None
    try:
        if database.execute("SELECT text FROM rules").fetchone() == (rules,):
            return database
    except DAMAGED as error:
        _warn(path, error)
    database.close()
    return None


def _put(database: sqlite3.Connection, statement: str, row: tuple[Any, ...]) -> None:
    try:
        database.execute(statement, row)
    except sqlite3.Error as error:
        raise _storage_error(error) from error


def _warn(path: Path, error: Exception) -> None:
    get_logger("crawl").warning(
        "the cache of listings cannot be read: archives and tables are read again",
        file=path.name,
        why=str(error),
    )


def _storage_error(error: Exception) -> StorageError:
    return StorageError(
        f"the cache of listings cannot be written: {error}",
        "free some disk space, or choose another `store`",
    )
