"""Temporary storage for the rows of a crawl until all sources are read.

Only then are the columns of the sources and their types known, and the two tables are written one
after the other. The rows are therefore kept in a temporary SQLite database in the staging folder of
the store, or in another folder. It needs constant memory, and its index finds duplicate ids.
"""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import pyarrow as pa

from mmindex.core.errors import StorageError
from mmindex.core.records import ImageRow, ItemError, Reason
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
    "PRAGMA journal_mode = OFF",  # temporary: removed after a crash, never recovered
    "PRAGMA synchronous = OFF",
    "PRAGMA cache_size = -65536",  # KiB
    f"CREATE TABLE images (number INTEGER PRIMARY KEY, {', '.join(IMAGE_COLUMNS)}, metadata)",
    "CREATE UNIQUE INDEX image_ids ON images (image_id)",
    # Clustered by image, because later rows can add captions to an image long after its first row.
    "CREATE TABLE captions (image INTEGER, place INTEGER, caption_id, key, image_id, text,"
    " PRIMARY KEY (image, place)) WITHOUT ROWID",
    # Only for tables, in which rows with the same bytes are one image.
    "CREATE TABLE contents (source, key, image INTEGER, PRIMARY KEY (source, key)) WITHOUT ROWID",
)
_PUT_IMAGE: Final = "INSERT OR IGNORE INTO images VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_CAPTION: Final = "INSERT INTO captions VALUES (?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Kept:
    """The ``images`` row of an image.

    Attributes:
        number: the row number.
        image_id: the id.
        is_new: whether the row is new; otherwise an earlier row of the source created it.
    """

    number: int
    image_id: str
    is_new: bool


class Spool:
    """The temporary database; a context manager that removes it at the end.

    Args:
        layout: the store.
        scratch: the folder of the database; None for the staging folder of the store.

    Raises:
        StorageError: the database cannot be created.
    """

    def __init__(self, layout: Layout, scratch: Path | None = None) -> None:
        folder = scratch or layout.staging_dir
        self._path = folder / f"mmindex-{uuid.uuid4().hex}.sqlite"
        self._columns = MetadataColumns()
        with _sqlite_errors(f"the tables in {folder}"):
            self._database = sqlite3.connect(self._path, isolation_level=None)
            for statement in _TABLES:
                self._database.execute(statement)
            self._database.execute("BEGIN")
        if scratch is not None:
            self._path.unlink()  # nobody else empties this folder, should the process be killed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._path.unlink(missing_ok=True)

    def add_image(self, row: ImageRow, *, is_row: bool = False) -> Kept:
        """Add the row of an image, or find the existing row of the same image in its source.

        Images are the same if their ids and bytes are equal; for rows of a table, only the bytes
        count.

        Args:
            row: the image.
            is_row: whether it is a row of a table, see :class:`mmindex.core.records.SourceItem`.

        Raises:
            ItemError: another image has this id; the detail names it.
            StorageError: the disk is full.
            DataError: the sources have too many columns.
        """
        with _sqlite_errors(row.image_id):
            if is_row and (known := self._find_image(row)):
                return known
            fixed = [getattr(row, name) for name in IMAGE_COLUMNS]
            metadata = msgspec.json.encode(row.metadata)
            added = self._database.execute(_PUT_IMAGE, [*fixed, metadata])
            if not added.rowcount:
                return self._same_id(row)
            kept = Kept(added.lastrowid or 0, row.image_id, is_new=True)
            if is_row:
                values = (row.source, row.key, kept.number)
                self._database.execute("INSERT INTO contents VALUES (?, ?, ?)", values)
        self._columns.add(row.metadata)
        return kept

    def _find_image(self, row: ImageRow) -> Kept | None:
        query = (
            "SELECT number, image_id FROM contents JOIN images ON image = number"
            " WHERE contents.source = ? AND contents.key = ?"
        )
        found = self._database.execute(query, (row.source, row.key)).fetchone()
        return None if found is None else Kept(found[0], found[1], is_new=False)

    def _same_id(self, row: ImageRow) -> Kept:
        query = "SELECT number, source, key, uri FROM images WHERE image_id = ?"
        number, source, key, uri = self._database.execute(query, (row.image_id,)).fetchone()
        if (source, key) != (row.source, row.key):
            raise ItemError(Reason.DUPLICATE_ID, f"{uri} has the same id: {row.image_id}")
        return Kept(number, row.image_id, is_new=False)

    def find_image(self, image_id: str) -> Kept | None:
        """Return the row of an earlier image by id, or None."""
        query = "SELECT number FROM images WHERE image_id = ?"
        with _sqlite_errors(image_id):
            found = self._database.execute(query, (image_id,)).fetchone()
        return None if found is None else Kept(found[0], image_id, is_new=False)

    def add_captions(
        self, kept: Kept, texts: Iterable[tuple[int, str]], vector_key: str = ""
    ) -> int:
        """Add the captions of an image, without those of its earlier rows.

        Args:
            kept: the image.
            texts: captions with their positions in the source.
            vector_key: the key of a single caption that has its own vector.

        Returns:
            the number of new captions.

        Raises:
            StorageError: the disk is full.
        """
        with _sqlite_errors("captions"):
            first, known = 0, set()
            if not kept.is_new:
                query = "SELECT place, key FROM captions WHERE image = ?"
                for place, key in self._database.execute(query, (kept.number,)):
                    first = max(first, place + 1)
                    known.add(key)
            rows: list[tuple[Any, ...]] = []
            for place, text in texts:
                key = vector_key or caption_key(text)
                number = first + (place if kept.is_new else len(rows))
                if key not in known:
                    name = f"{kept.image_id}#{number}"
                    rows.append((kept.number, number, name, key, kept.image_id, text))
            self._database.executemany(_PUT_CAPTION, rows)
        return len(rows)

    @property
    def mixed_columns(self) -> list[str]:
        """Return the source columns with values of several types, which are stored as text."""
        return sorted(self._columns.mixed)

    def write_images(self, objects: Objects) -> ObjectRef:
        """Write the ``images`` object, with rows in the order of arrival."""
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
        """Write the ``captions`` object, rows in the order of their images."""
        query = "SELECT caption_id, key, image_id, text FROM captions ORDER BY image, place"
        batches = (
            _batch(list(zip(*rows, strict=True)), CAPTIONS_SCHEMA) for rows in self._chunks(query)
        )
        return objects.write_table("captions", CAPTIONS_SCHEMA, batches)

    def _chunks(self, query: str) -> Iterator[list[tuple[Any, ...]]]:
        """Yield lists of rows, one per row group."""
        rows: list[tuple[Any, ...]] = []
        chars = 0
        with _sqlite_errors("rows"), closing(self._database.execute(query)) as cursor:
            for row in cursor:
                rows.append(row)
                chars += len(row[-1])  # metadata or text: the only values of unlimited size
                if len(rows) >= _BATCH_ROWS or chars >= _BATCH_CHARS:
                    yield rows
                    rows, chars = [], 0
        if rows:
            yield rows


def caption_key(text: str) -> str:
    """Return the key of a text: the sha256 of its UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


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
            f"writing {what} to the temporary database of the crawl failed: {error}",
            "free some disk space, or choose another `store` or `scratch`",
        ) from error
