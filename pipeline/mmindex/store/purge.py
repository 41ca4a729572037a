"""Remove forgotten items from the files that do not belong to a version.

Each step can be repeated and does nothing the second time, so the next run finishes a run that was
killed. All steps use the digests that the version carries.
"""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmindex.core.errors import DataError, os_errors
from mmindex.core.progress import get_logger
from mmindex.core.records import QuarantineEntry
from mmindex.store import publish, versions
from mmindex.store.forgotten import Forgotten, read_forgotten, rows_among
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest
from mmindex.store.quarantine import read_entries, read_ledger, write_ledger
from mmindex.store.snapshot import Snapshot

# The status of a forgotten row in a shard of fetched images, see :mod:`mmindex.fetch`.
FORGOTTEN_STATUS: Final = "forgotten"
REPLACEMENT: Final = "(forgotten)"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PUNCTUATION: Final = "\"'`:,;()[]{}<>"


def purge(snapshot: Snapshot, *, held: bool = False) -> None:
    """Remove everything forgotten from downloads, stamps, the quarantine ledger and run reports.

    Objects that no version lists are removed too if they are older than the version, because
    leftovers of a killed run can contain anything.

    Args:
        snapshot: the published version; the store's writer lock must be held.
        held: whether versions that contain forgotten items could be read until now. If so, younger
            objects that no version lists are removed as well: a part of an encoding may have made
            them from such a version.

    Raises:
        DataError: the version's list, or a shard of fetched images, is damaged.
        StorageError: the disk is full.
    """
    layout, forgotten = snapshot.layout, read_forgotten(snapshot)
    for path in fetched_shards(layout):
        purge_fetched(layout, path, forgotten)
    purge_stamps(layout, forgotten)
    _purge_ledger(snapshot, forgotten)
    purge_reports(layout, forgotten)
    _remove_unlisted(layout, snapshot.manifest, younger=held)


def _remove_unlisted(layout: Layout, manifest: Manifest, *, younger: bool) -> None:
    listed = {ref.sha256 for ref in manifest.objects}
    for number in versions.list_versions(layout):
        try:
            listed |= {ref.sha256 for ref in versions.read_version(layout, number).objects}
        except DataError as error:
            # Versions below the floor protect no objects; one that stays must be readable.
            if number >= manifest.floor:
                raise
            get_logger("forget").warning("skipping a damaged version", why=error.message)
    newest = layout.version(manifest.version).stat().st_mtime_ns
    unlisted = (path for path in layout.objects_dir.glob("*/*") if path.name not in listed)
    publish.remove_files(
        [
            path
            for path in unlisted
            if _SHA256.fullmatch(path.name) and (younger or path.stat().st_mtime_ns <= newest)
        ]
    )


def fetched_shards(layout: Layout) -> list[Path]:
    """Return the shards of fetched images, in the order in which they were made."""
    return sorted((layout.downloads_dir / "fetched").glob("[0-9]*.parquet"))


def forgotten_rows(path: Path, forgotten: Forgotten) -> NDArray[np.bool_]:
    """Return which rows of a shard of fetched images are forgotten, by key or address: bool (n,).

    Raises:
        DataError: the shard is damaged.
    """
    found = [np.zeros(0, dtype=np.bool_)]
    try:
        with os_errors(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(16_384, columns=["url", "key"]):
                by_url = rows_among(batch["url"], forgotten.addresses)
                found.append(by_url | rows_among(batch["key"], forgotten.keys))
    except (pa.ArrowInvalid, KeyError) as error:
        raise DataError(
            f"{path}: damaged: {error}", "remove this file: its images are then downloaded again"
        ) from error
    return np.concatenate(found)


def purge_fetched(layout: Layout, path: Path, forgotten: Forgotten) -> None:
    """Clear the forgotten rows of one shard of fetched images.

    Rows keep their positions, because the URIs of all others have row numbers.
    """
    gone = forgotten_rows(path, forgotten)
    if not gone.any():
        return
    with (
        os_errors(path),
        pq.ParquetFile(path, page_checksum_verification=True) as file,
        publish.StagedFile(layout) as staged,
    ):
        schema = file.schema_arrow
        plain = {name: "none" if name == "bytes" else "zstd" for name in schema.names}
        with pq.ParquetWriter(
            pa.PythonFile(staged, mode="w"),
            schema,
            compression=plain,
            use_dictionary=["status", "detail"],
            write_statistics=False,
            write_page_checksum=True,
        ) as writer:
            first = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                writer.write_table(_blanked(table, gone[first : first + table.num_rows]))
                first += table.num_rows
        staged.publish(path)


def _blanked(table: pa.Table, gone: NDArray[np.bool_]) -> pa.Table:
    """Return the table with the content of the rows ``gone`` cleared; only the rows remain."""
    if not gone.any():
        return table
    blanks: dict[str, Any] = {"status": FORGOTTEN_STATUS, "bytes": None, "has_bytes": False}
    columns = []
    for field, column in zip(table.schema, table.columns, strict=True):
        default: Any = "" if pa.types.is_string(field.type) else 0
        blank = pa.scalar(blanks.get(field.name, default), field.type)
        columns.append(pc.if_else(pa.array(gone), blank, column))
    return pa.table(columns, schema=table.schema)


def purge_stamps(layout: Layout, forgotten: Forgotten, uris: Collection[str] = frozenset()) -> None:
    """Drop the rows of forgotten keys, and of ``uris``, from the list of unchanged files.

    The list is a cache: if it is damaged or cannot be written, it is removed.
    """
    if layout.listings_file.exists():  # it has the captions of forgotten images
        publish.remove_file(layout.listings_file)
    path = layout.stamps_file
    scratch = layout.staging_dir / f"{uuid.uuid4().hex}.sqlite"
    try:
        rewritten = path.is_file() and _copy_stamps(path, scratch, forgotten, uris)
    except DAMAGED as error:
        get_logger("forget").warning("removing the cache of unchanged files", why=str(error))
        scratch.unlink(missing_ok=True)
        publish.remove_file(path)
        return
    if rewritten:
        with publish.PartialFile(scratch, scratch.stat().st_size) as file:
            file.publish(path)


def stamped_keys(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (URI, key in hex) of every file in the list of unchanged files."""
    with closing(open_stamps(path)) as database:
        # A damaged row can contain a value of any type.
        yield from database.execute("SELECT uri, lower(hex(key)) FROM files")


# What reading a damaged database raises: the messages of SQLite quote damaged text.
DAMAGED: Final = (sqlite3.DatabaseError, UnicodeDecodeError)


def open_stamps(path: Path) -> sqlite3.Connection:
    """Open the list of unchanged files for reading; the caller closes it.

    Raises:
        sqlite3.DatabaseError: it cannot be opened; damage may only appear when it is read, as one
            of :data:`DAMAGED`.
    """
    # "immutable": SQLite creates no lock file beside it and writes nothing.
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _copy_stamps(path: Path, scratch: Path, forgotten: Forgotten, uris: Collection[str]) -> bool:
    """Copy the rows that can stay; return False without a copy if all can stay.

    Deleting in place would leave the bytes in the file.
    """

    def gone(uri: str, key: str) -> bool:
        return uri in uris or forgotten.has_key(key)

    if not any(gone(uri, key) for uri, key in stamped_keys(path)):
        return False
    with (
        closing(open_stamps(path)) as before,
        closing(sqlite3.connect(scratch, isolation_level=None)) as after,
    ):
        after.execute("PRAGMA journal_mode = OFF")
        after.execute("PRAGMA synchronous = OFF")
        tables = before.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
        for name, statement in tables.fetchall():
            after.execute(statement)
            after.execute("BEGIN")
            rows = before.execute(f"SELECT * FROM {name}")  # noqa: S608  # a table of ours
            names = [column[0] for column in rows.description]
            marks = ", ".join("?" * len(names))
            by_file = "uri" in names and "key" in names
            where = (names.index("uri"), names.index("key")) if by_file else None
            after.executemany(
                f"INSERT INTO {name} VALUES ({marks})",  # noqa: S608  # a table of ours
                (row for row in rows if where is None or not gone(*_uri_and_key(row, *where))),
            )
            after.execute("COMMIT")
    return True


def _uri_and_key(row: tuple[Any, ...], uri: int, key: int) -> tuple[str, str]:
    return row[uri], row[key].hex() if isinstance(row[key], bytes) else ""


def is_forgotten(entry: QuarantineEntry, forgotten: Forgotten) -> bool:
    """Return whether a quarantine entry is about a forgotten image."""
    return (
        forgotten.has_id(entry.id)
        or bool(entry.key and forgotten.has_key(entry.key))
        or forgotten.has_address(entry.uri)
    )


def _purge_ledger(snapshot: Snapshot, forgotten: Forgotten) -> None:
    layout = snapshot.layout
    try:
        entries = list(read_ledger(layout))
    except DataError as error:
        get_logger("forget").warning("replacing the quarantine ledger", why=error.message)
        entries = read_entries(snapshot.objects, snapshot.manifest.find("quarantine"))
        write_ledger(layout, entries)
    kept = [entry for entry in entries if not is_forgotten(entry, forgotten)]
    if len(kept) < len(entries):
        write_ledger(layout, kept)


def purge_reports(layout: Layout, forgotten: Forgotten, names: Collection[str] = ()) -> None:
    """Replace forgotten ids and keys, and ``names``, in the reports of earlier runs."""
    for path in sorted(layout.runs_dir.glob("*.json")):
        with os_errors(path):
            data = path.read_bytes()
        new = data
        # Longest first, because an id can be a prefix of another.
        for name in sorted({*names, *mentions(data, forgotten)}, key=len, reverse=True):
            for form in (msgspec.json.encode(name), json.dumps(name).encode()):
                new = new.replace(form[1:-1], REPLACEMENT.encode())
        if new != data:
            publish.write_file(layout, path, new)


def mentions(data: bytes, forgotten: Forgotten) -> set[str]:
    """Return forgotten ids and keys in JSON: whole strings, their words, and runs of 64 hex digits.

    In damaged JSON nothing can be recognised.
    """
    try:
        strings = set(_strings(msgspec.json.decode(data)))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return set()
    found = set()
    for text in strings:
        words = {text, *(word.strip(_PUNCTUATION) for word in text.split())}
        found |= {word for word in words if word and forgotten.has_id(word)}
        found |= {word for word in words if word and forgotten.has_address(word)}
        found |= {key for key in _SHA256.findall(text) if forgotten.has_key(key)}
    return found


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
