"""Rows of a crawl kept aside on disk until all sources are read.

Only then is it known which columns the sources bring and of which type, and the two tables are
written one after the other, so the rows wait in a scratch SQLite database in the store's staging
folder: constant memory, and its index finds ids that are taken.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final, Self

import msgspec
import pyarrow as pa

from mmindex.core.errors import StorageError
from mmindex.core.records import CaptionRow, ImageRow
from mmindex.crawl.tables import (
    CAPTIONS_SCHEMA,
    IMAGE_COLUMNS,
    MetadataColumns,
    column_value,
    images_schema,
)
from mmindex.store.layout import Layout
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects

# A row group of the table on disk; the byte bound keeps a corpus of long captions in memory.
_BATCH_ROWS: Final = 32_768
_BATCH_CHARS: Final = 16 << 20

_TABLES: Final = (
    "PRAGMA journal_mode = OFF",  # scratch: after a crash it is removed, never recovered
    "PRAGMA synchronous = OFF",
    "PRAGMA cache_size = -65536",  # KiB
    f"CREATE TABLE images (number INTEGER PRIMARY KEY, {', '.join(IMAGE_COLUMNS)}, metadata)",
    "CREATE UNIQUE INDEX image_ids ON images (image_id)",
    "CREATE TABLE captions (number INTEGER PRIMARY KEY, caption_id, key, image_id, text)",
)
_PUT_IMAGE: Final = "INSERT OR IGNORE INTO images VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_CAPTION: Final = "INSERT INTO captions VALUES (NULL, ?, ?, ?, ?)"


class Spool:
    """The scratch database; use as a context manager, which removes it."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.staging_dir / f"{uuid.uuid4().hex}.sqlite"
        self._columns = MetadataColumns()
        with _sqlite_errors(self._path.name):
            self._database = sqlite3.connect(self._path, isolation_level=None)
            for statement in _TABLES:
                self._database.execute(statement)
            self._database.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._path.unlink(missing_ok=True)

    def add_image(self, row: ImageRow) -> bool:
        """Keep an image's row; False if its id is taken already.

        Raises:
            StorageError: the disk is full.
            DataError: the sources bring too many columns.
        """
        fixed = [getattr(row, name) for name in IMAGE_COLUMNS]
        metadata = msgspec.json.encode(row.metadata)
        with _sqlite_errors(row.image_id):
            added = self._database.execute(_PUT_IMAGE, [*fixed, metadata]).rowcount > 0
        if added:
            self._columns.add(row.metadata)
        return added

    def add_captions(self, rows: Iterable[CaptionRow]) -> None:
        """Keep an image's captions.

        Raises:
            StorageError: the disk is full.
        """
        values = ((row.caption_id, row.key, row.image_id, row.text) for row in rows)
        with _sqlite_errors("captions"):
            self._database.executemany(_PUT_CAPTION, values)

    def write_images(self, objects: Objects) -> ObjectRef:
        """Write the ``images`` object, rows in the order they came."""
        types = self._columns.types()
        schema = images_schema(types)
        fixed = ", ".join(IMAGE_COLUMNS)

        def batches() -> Iterator[pa.RecordBatch]:
            query = f"SELECT {fixed}, metadata FROM images ORDER BY number"  # noqa: S608  # constants
            for rows in self._chunks(query):
                columns = list(zip(*rows, strict=True))
                metadata = [msgspec.json.decode(text) for text in columns.pop()]
                own = [
                    [column_value(row.get(name), kind) for row in metadata]
                    for name, kind in types.items()
                ]
                yield _batch([*columns, *own], schema)

        return objects.write_table("images", schema, batches())

    def write_captions(self, objects: Objects) -> ObjectRef:
        """Write the ``captions`` object, rows in the order they came."""
        query = "SELECT caption_id, key, image_id, text FROM captions ORDER BY number"
        batches = (
            _batch(list(zip(*rows, strict=True)), CAPTIONS_SCHEMA) for rows in self._chunks(query)
        )
        return objects.write_table("captions", CAPTIONS_SCHEMA, batches)

    def _chunks(self, query: str) -> Iterator[list[tuple[Any, ...]]]:
        """Rows in lists that make one row group each."""
        rows: list[tuple[Any, ...]] = []
        chars = 0
        with _sqlite_errors("rows"), closing(self._database.execute(query)) as cursor:
            for row in cursor:
                rows.append(row)
                chars += len(row[-1])  # metadata or text: the only values without a bound
                if len(rows) >= _BATCH_ROWS or chars >= _BATCH_CHARS:
                    yield rows
                    rows, chars = [], 0
        if rows:
            yield rows


def _batch(columns: list[Any], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [
        pa.array(list(column), type=field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


@contextmanager
def _sqlite_errors(what: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"keeping {what} aside in the store's staging folder failed: {error}",
            "free some space, or choose another `store`",
        ) from error
