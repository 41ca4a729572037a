"""Compare two crawls of a corpus: rows added, removed, replaced, unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.errors import (
    MmindexError,
    StorageError,
    Terminated,
    duckdb_interrupts,
    terminated,
)
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects

# Above this limit, the join writes rows to the staging folder: bounded memory for any corpus.
_SETTINGS: Final[dict[str, str | bool | int | float | list[str]]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "memory_limit": "256MB",
    "threads": "2",
}
# Twelve digits of a key are what DuckDB stores without a pointer, and more than enough to
# distinguish two keys of one id. (Its hash() instead of the id would save more, but 1 of 25,000
# sequentially numbered names collides.)
_JOIN: Final = """
    WITH before AS (SELECT id, left(key, 12) AS key
                    FROM old ANTI JOIN passed_over ON old.image_id = passed_over.id),
         after AS (SELECT id, left(key, 12) AS key FROM new)
    SELECT count(*) FILTER (before.id IS NULL), count(*) FILTER (after.id IS NULL),
           count(*) FILTER (before.key <> after.key), count(*) FILTER (before.key = after.key)
    FROM before FULL JOIN after ON before.id = after.id
"""
_BY_SOURCE: Final = """
    SELECT old.source, count(*), count(*) FILTER (new.id IS NULL)
    FROM old LEFT JOIN new ON old.image_id = new.id GROUP BY old.source
"""
# Binary: a name may contain bytes that are not valid UTF-8.
_ROW: Final = pa.schema([("id", pa.binary()), ("key", pa.string()), ("image_id", pa.binary())])
_ID: Final = pa.schema([("id", pa.binary())])
_OWNED: Final = pa.schema([("image_id", pa.binary()), ("source", pa.string())])


class Delta(msgspec.Struct, frozen=True):
    """The changes of one table's rows, identified by their ids.

    ``replaced`` rows have an existing id and a new key, and therefore new content.
    """

    added: int = 0
    removed: int = 0
    replaced: int = 0
    unchanged: int = 0

    @property
    def before(self) -> int:
        """The number of rows before."""
        return self.removed + self.replaced + self.unchanged

    @property
    def any(self) -> bool:
        """Whether any row changed."""
        return bool(self.added or self.removed or self.replaced)


class Changes(msgspec.Struct, frozen=True):
    """The differences between a crawl and the published version."""

    images: Delta
    captions: Delta

    @property
    def any(self) -> bool:
        """Whether anything changed."""
        return self.images.any or self.captions.any


@dataclass(frozen=True, slots=True)
class Tables:
    """Two tables of the corpus, with their ids in ``image_id`` and ``caption_id``."""

    images: ObjectRef
    captions: ObjectRef

    @classmethod
    def of(cls, manifest: Manifest | None, stage: str = "crawl/") -> Tables | None:
        """Return a version's tables, with an empty ``stage`` the indexed ones; None without any."""
        if manifest is None:
            return None
        images, captions = manifest.find(f"{stage}images"), manifest.find(f"{stage}captions")
        return None if images is None or captions is None else cls(images, captions)


def compare(
    objects: Objects, before: Tables | None, after: Tables, unread: Sequence[str] = ()
) -> Changes:
    """Compare two crawls; without an earlier one, everything is new.

    Args:
        objects: the store's objects.
        before: the published version's tables.
        after: the new tables.
        unread: sources (in the column ``source``) that the later crawl has not read; their earlier
            rows are left out.

    Raises:
        DataError: a table is damaged.
        StorageError: the disk has no space for the comparison's temporary files.
    """
    if before is None:
        return Changes(Delta(added=after.images.rows), Delta(added=after.captions.rows))
    sides = (
        (before.images, after.images, "image_id"),
        (before.captions, after.captions, "caption_id"),
    )
    deltas = []
    for old, new, column in sides:
        if old.sha256 == new.sha256 and not unread:
            deltas.append(Delta(unchanged=new.rows))
        else:
            for table in (before.images, old, new):
                objects.path(table)  # report damage here, not as an error of the join
            streams = _Streams()
            passed_over = _ids_of(objects, before.images, unread)
            with _database(objects.layout, streams) as database:
                database.register("passed_over", streams.reader(_ID, passed_over))
                database.register("old", streams.reader(_ROW, _rows(objects, old, column)))
                database.register("new", streams.reader(_ROW, _rows(objects, new, column)))
                deltas.append(Delta(*(database.execute(_JOIN).fetchone() or ())))
    return Changes(*deltas)


def removed_by_source(
    objects: Objects, before: ObjectRef, after: ObjectRef
) -> dict[str, tuple[int, int]]:
    """Count the images of each source, and how many of them are gone.

    Args:
        objects: the store's objects.
        before, after: the two tables of images.

    Returns:
        Both numbers, by the column ``source`` of the earlier table.

    Raises:
        DataError: a table is damaged.
        StorageError: the disk has no space for the comparison's temporary files.
    """
    for table in (before, after):
        objects.path(table)
    streams = _Streams()
    with _database(objects.layout, streams) as database:
        database.register("old", streams.reader(_OWNED, _owned(objects, before)))
        database.register("new", streams.reader(_ID, _ids(objects, after)))
        rows = database.execute(_BY_SOURCE).fetchall()
    return {source: (had, gone) for source, had, gone in rows}


def _owned(objects: Objects, images: ObjectRef) -> Iterator[pa.RecordBatch]:
    for batch in objects.iter_batches(images, ["image_id", "source"]):
        columns = [batch["image_id"].cast(pa.binary()), batch["source"]]
        yield pa.RecordBatch.from_arrays(columns, schema=_OWNED)


def _ids(objects: Objects, images: ObjectRef) -> Iterator[pa.RecordBatch]:
    for batch in objects.iter_batches(images, ["image_id"]):
        yield pa.RecordBatch.from_arrays([batch["image_id"].cast(pa.binary())], schema=_ID)


@dataclass(slots=True)
class _Streams:
    """The input of DuckDB, which turns exceptions into text; the first exception is kept here."""

    error: BaseException | None = None

    def reader(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(schema, self._kept(batches))

    def _kept(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except (MmindexError, OSError, Terminated, KeyboardInterrupt) as error:
            self.error = self.error or error
            raise


@contextmanager
def _database(layout: Layout, streams: _Streams) -> Iterator[duckdb.DuckDBPyConnection]:
    settings = {**_SETTINGS, "temp_directory": str(layout.staging_dir / "compare")}
    try:
        with duckdb_interrupts(), duckdb.connect(":memory:", config=settings) as database:
            yield database
    except duckdb.Error as error:
        if streams.error is not None:
            raise streams.error from error
        if terminated():
            raise Terminated from error
        if not isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException):
            raise
        raise StorageError(
            "comparing the corpus with that of the last version failed: "
            f"{str(error).splitlines()[0]}",
            "free some disk space, or choose another `store`",
        ) from error


def _rows(objects: Objects, table: ObjectRef, column: str) -> Iterator[pa.RecordBatch]:
    """Yield the id, key and image of each row."""
    for batch in objects.iter_batches(table, list(dict.fromkeys((column, "key", "image_id")))):
        ids, images = batch[column].cast(pa.binary()), batch["image_id"].cast(pa.binary())
        yield pa.RecordBatch.from_arrays([ids, batch["key"], images], schema=_ROW)


def _ids_of(
    objects: Objects, images: ObjectRef, sources: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yield the image ids of some sources."""
    wanted = pa.array(sources, pa.string())
    for batch in objects.iter_batches(images, ["image_id", "source"]) if sources else ():
        chosen = batch["image_id"].filter(pc.is_in(batch["source"], value_set=wanted))
        yield pa.RecordBatch.from_arrays([chosen.cast(pa.binary())], schema=_ID)
