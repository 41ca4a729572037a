"""Track every row and URL of a list during a run.

A scratch SQLite database in the store's staging folder. Each run creates it from the list and the
shards, which are the only permanent records, so that nothing can be inconsistent after a kill.
Memory is bounded for lists of any length.
"""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from mmindex.core.config import FetchConfig
from mmindex.core.errors import StorageError
from mmindex.core.records import MetadataValue
from mmindex.fetch.addresses import parse_url
from mmindex.fetch.images import Fetched
from mmindex.fetch.outcome import TRANSIENT, FetchError, FetchStatus
from mmindex.fetch.shards import State
from mmindex.store.forgotten import NOTHING, Forgotten
from mmindex.store.layout import Layout

_CHUNK_ROWS: Final = 256
_DAY_MS: Final = 24 * 3600 * 1000

_TABLES: Final = (
    "PRAGMA journal_mode = OFF",  # temporary: removed after a crash, never recovered
    "PRAGMA synchronous = OFF",
    "PRAGMA cache_size = -8192",  # KiB
    "PRAGMA temp_store = FILE",
    "CREATE TABLE rows (n INTEGER PRIMARY KEY, address, name, split, captions, metadata)",
    "CREATE TABLE addresses (address BLOB PRIMARY KEY, n, copies, host, url) WITHOUT ROWID",
    "CREATE TABLE fetched (address BLOB PRIMARY KEY, status, detail, code, at, key, fresh)"
    " WITHOUT ROWID",
    "CREATE TABLE stored (key BLOB PRIMARY KEY, shard, row) WITHOUT ROWID",
)
_PUT_ADDRESS: Final = (
    "INSERT INTO addresses VALUES (?, ?, 1, ?, ?)"
    " ON CONFLICT (address) DO UPDATE SET copies = copies + 1"
)
_PUT_FETCHED: Final = (
    "INSERT INTO fetched VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (address) DO UPDATE SET"
    " status = excluded.status, detail = excluded.detail, code = excluded.code,"
    " at = excluded.at, key = excluded.key, fresh = excluded.fresh"
    " WHERE fetched.status != 'stored'"
)
_MAKE_TODO: Final = (
    "CREATE TABLE todo AS SELECT a.host, a.n, a.url FROM addresses a"
    " LEFT JOIN fetched f USING (address) WHERE f.status IS NULL"
    " OR (f.status NOT IN ('stored', 'forgotten') AND f.at < ?) OR f.status IN ({})"
)


@dataclass(frozen=True, slots=True)
class ListRow:
    """One row of a URL list.

    Attributes:
        url: as in the list.
        captions: none, one, or several.
        name: the list's own id of the row, or the empty string.
        split: ``all`` if the list has none.
        metadata: the list's other columns.
    """

    url: str
    captions: tuple[str, ...] = ()
    name: str = ""
    split: str = "all"
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowState:
    """One row with the result of its address.

    Attributes:
        number: position in the list, from 0.
        row: as in the list, with the captions of every row that has this address.
        repeats: whether an earlier row has the same address.
        status: status of the fetch; None if the address was never requested.
        detail: why nothing is stored.
        key: sha256 of the bytes.
        place: shard and row with the bytes, or None.
    """

    number: int
    row: ListRow
    repeats: bool
    status: FetchStatus | None
    detail: str
    key: str
    place: tuple[int, int] | None


def address_of(url: str) -> bytes:
    """Return the key of an address in the tables: the first 16 bytes of its sha256."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()[:16]


class Ledger:
    """The scratch database; use as a context manager, which removes it."""

    def __init__(self, layout: Layout, forgotten: Forgotten = NOTHING) -> None:
        self.forgotten = forgotten
        self._path: Path = layout.staging_dir / f"{uuid.uuid4().hex}.sqlite"
        with _sqlite_errors():
            self._database = sqlite3.connect(self._path, isolation_level=None)
            for statement in _TABLES:
                self._database.execute(statement)
            self._database.execute("BEGIN")
        self.planned = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._path.unlink(missing_ok=True)

    def _run(self, statement: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        with _sqlite_errors():
            return self._database.execute(statement, tuple(values))

    def add_rows(self, rows: Iterable[ListRow]) -> int:
        """Add the list's rows; return their number."""
        count = 0
        numbered = enumerate(rows)
        while chunk := list(itertools.islice(numbered, _CHUNK_ROWS)):
            found = [(n, row, address_of(row.url)) for n, row in chunk]
            with _sqlite_errors():
                self._database.executemany(
                    "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)",
                    [(n, address, *_listed(row)) for n, row, address in found],
                )
                self._database.executemany(
                    _PUT_ADDRESS,
                    [(address, n, _host_of(row.url), row.url) for n, row, address in found],
                )
            count += len(chunk)
        return count

    def add_states(self, shard: int, states: Iterable[State]) -> None:
        """Add the states from a shard of an earlier run."""
        for state in states:
            if not state.url:  # a row whose content was forgotten
                continue
            self._put(
                address_of(state.url),
                (state.status, state.detail, state.http_status, state.fetched_at_ms, state.key, 0),
            )
            if state.has_bytes:
                self.keep(state.key, shard, state.row)

    def add_fetched(self, fetched: Fetched, at_ms: int) -> None:
        """Add a result of this run. It is durable once its shard is published."""
        self._put(
            address_of(fetched.url),
            (fetched.status, fetched.detail, fetched.http_status, at_ms, fetched.key, 1),
        )

    def _put(self, address: bytes, values: tuple[Any, ...]) -> None:
        status, detail, code, at_ms, key, fresh = values
        self._run(
            _PUT_FETCHED, (address, str(status), detail, code, at_ms, bytes.fromhex(key), fresh)
        )

    def keep(self, key: str, shard: int, row: int) -> bool:
        """Record where the bytes of ``key`` are; False if they are already stored elsewhere."""
        added = self._run(
            "INSERT OR IGNORE INTO stored VALUES (?, ?, ?)", (bytes.fromhex(key), shard, row)
        )
        return added.rowcount > 0

    def plan(self, settings: FetchConfig) -> int:
        """Choose the addresses to fetch; return their number.

        Never requested: always. Temporary failure: always. Permanent failure: after
        ``retry_permanent_days``. Refused as private: as soon as that is allowed. Stored or
        forgotten: never.
        """
        again = TRANSIENT | ({FetchStatus.REFUSED_ADDRESS} if settings.allow_private else set())
        cutoff = int(time.time() * 1000 - settings.retry_permanent_days * _DAY_MS)
        passing = ", ".join(f"'{status}'" for status in sorted(again))
        self._run(_MAKE_TODO.format(passing), (cutoff,))
        self._run("CREATE INDEX by_host ON todo (host, n)")
        self.planned = int(self._run("SELECT count(*) FROM todo").fetchone()[0])
        return self.planned

    def hosts(self) -> Iterator[tuple[str, int]]:
        """Yield the hosts to fetch from, in list order, with the number of addresses of each."""
        yield from self._run("SELECT host, count(*) FROM todo GROUP BY host ORDER BY min(n)")

    def todo(self, host: str) -> Iterator[str]:
        """Yield the addresses to fetch from one host, in list order."""
        last = -1
        query = "SELECT n, url FROM todo WHERE host = ? AND n > ? ORDER BY n LIMIT ?"
        while chunk := self._run(query, (host, last, _CHUNK_ROWS)).fetchall():
            yield from (url for _, url in chunk)
            last = chunk[-1][0]

    def counts(self, fresh: bool) -> dict[str, int]:
        """Return the number of addresses of the list by status.

        Args:
            fresh: only those that this run has requested.
        """
        query = (
            "SELECT f.status, count(*) FROM addresses JOIN fetched f USING (address)"
            " WHERE f.fresh >= ? GROUP BY f.status ORDER BY 2 DESC, 1"
        )
        return dict(self._run(query, (int(fresh),)))

    def host_counts(self, limit: int) -> list[tuple[str, str, int]]:
        """Return (host, status, count) of this run, most frequent first."""
        query = (
            "SELECT a.host, f.status, count(*) FROM addresses a JOIN fetched f USING (address)"
            " WHERE f.fresh GROUP BY a.host, f.status ORDER BY 3 DESC, 1, 2 LIMIT ?"
        )
        return list(self._run(query, (limit,)))

    def rows(self) -> Iterator[RowState]:
        """Yield every row of the list, in order, with its result."""
        query = (
            "SELECT r.n, a.n, a.copies, a.url, a.address, r.name, r.split, r.captions, r.metadata,"
            " f.status, f.detail, f.key, s.shard, s.row"
            " FROM rows r JOIN addresses a USING (address)"
            " LEFT JOIN fetched f USING (address) LEFT JOIN stored s ON s.key = f.key"
            " ORDER BY r.n"
        )
        for found in self._run(query):
            n, first, copies, url, address, name, split, captions, metadata = found[:9]
            status, detail, key, shard, row = found[9:]
            merged = copies > 1 and n == first
            texts = self._all_captions(address) if merged else msgspec.json.decode(captions)
            yield RowState(
                number=n,
                row=ListRow(url, tuple(texts), name, split, msgspec.json.decode(metadata)),
                repeats=n != first,
                status=None if status is None else FetchStatus(status),
                detail=detail or "",
                key=(key or b"").hex(),
                place=None if shard is None else (shard, row),
            )

    def _all_captions(self, address: bytes) -> list[str]:
        query = "SELECT captions FROM rows WHERE address = ? ORDER BY n"
        self._run("CREATE INDEX IF NOT EXISTS by_address ON rows (address)")
        return [
            text for (row,) in self._run(query, (address,)) for text in msgspec.json.decode(row)
        ]


def _listed(row: ListRow) -> tuple[str, str, bytes, bytes]:
    captions, metadata = msgspec.json.encode(row.captions), msgspec.json.encode(row.metadata)
    return row.name, row.split, captions, metadata


def _host_of(url: str) -> str:
    """Return host and port, the unit of politeness; empty if the URL is invalid."""
    try:
        parsed = parse_url(url)
    except FetchError:
        return ""
    return f"{parsed.raw_host}:{parsed.port}"


@contextmanager
def _sqlite_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"writing a URL list to the staging folder of the store failed: {error}",
            "free some disk space, or choose another `store`",
        ) from error
