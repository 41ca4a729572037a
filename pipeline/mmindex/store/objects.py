"""Read and write objects; nothing is used before its sha256 is verified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmindex.core.errors import DataError, os_errors
from mmindex.store.layout import Layout
from mmindex.store.manifest import ObjectRef
from mmindex.store.publish import StagedFile

_CHUNK_BYTES = 1 << 20
REPAIR_HINT = "run `mmindex check --full`; `mmindex build` creates damaged objects again"


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, in hex.

    Raises:
        MmindexError: the file cannot be read.
    """
    with os_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Objects:
    """The objects of one store, each verified before its first use in this process.

    ``bytes_written`` counts the bytes written through this object.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.bytes_written = 0
        self._verified: set[str] = set()

    def path(self, ref: ObjectRef) -> Path:
        """Return the object's path after verifying size and sha256 (once per object).

        Raises:
            DataError: the object is missing or damaged; the message names the file.
        """
        path = self.unverified_path(ref)
        if ref.sha256 not in self._verified:
            if hash_file(path) != ref.sha256:
                raise DataError(f"{path} ({ref.name}): damaged (sha256 differs)", REPAIR_HINT)
            self._verified.add(ref.sha256)
        return path

    def unverified_path(self, ref: ObjectRef) -> Path:
        """Return the object's path after checking its existence and size.

        Only for readers that verify digests block by block, see :mod:`mmindex.store.vectors`.

        Raises:
            DataError: the object is missing or has another size.
        """
        path = self.layout.object(ref.sha256)
        if not path.is_file():
            raise DataError(f"{path} ({ref.name}): missing", REPAIR_HINT)
        size = path.stat().st_size
        if size != ref.bytes:
            raise DataError(f"{path} ({ref.name}): {size} bytes, not {ref.bytes}", REPAIR_HINT)
        return path

    def write(self, name: str, fill: Callable[[StagedFile], int]) -> ObjectRef:
        """Write an object; ``fill`` writes the content and returns the number of rows."""
        with StagedFile(self.layout) as staged:
            rows = fill(staged)
            sha256 = staged.publish_object()
            self.bytes_written += staged.size_bytes
            return ObjectRef(name=name, sha256=sha256, bytes=staged.size_bytes, rows=rows)

    def write_table(
        self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch | pa.Table]
    ) -> ObjectRef:
        """Write a Parquet object from a stream of batches.

        The same batches have the same bytes: the file has no time stamp. Page checksums are on.
        """

        def fill(staged: StagedFile) -> int:
            rows = 0
            with pq.ParquetWriter(
                pa.PythonFile(staged, mode="w"),
                schema,
                compression="zstd",
                # Vectors do not repeat: a dictionary would make writing take 2.7 times as long for
                # nothing.
                use_dictionary=[f.name for f in schema if not pa.types.is_nested(f.type)],
                write_page_checksum=True,
                store_schema=True,
            ) as writer:
                for batch in batches:
                    table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
                    rows += table.num_rows
                    writer.write_table(table)
            return rows

        return self.write(name, fill)

    def open_parquet(self, ref: ObjectRef) -> pq.ParquetFile:
        """Open a verified Parquet object; its pages are verified again as they are read."""
        return pq.ParquetFile(self.path(ref), page_checksum_verification=True, memory_map=True)

    def read_table(self, ref: ObjectRef, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a Parquet object, whole or only some of its columns.

        Raises:
            DataError: the object is missing or damaged.
        """
        with self.open_parquet(ref) as file:
            return file.read(columns=list(columns) if columns is not None else None)

    def take(self, ref: ObjectRef, columns: Sequence[str], rows: NDArray[np.int64]) -> pa.Table:
        """Read some rows of a Parquet object; only the row groups with these rows are read.

        Args:
            ref: the object.
            columns: the columns to read.
            rows: int64 (n,), ascending, distinct.

        Raises:
            DataError: the object is missing or damaged.
        """
        first, parts = 0, []
        with self.open_parquet(ref) as file:
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                low, high = np.searchsorted(rows, (first, first + size))
                if low < high:
                    part = file.read_row_group(group, columns=list(columns))
                    parts.append(part.take(pa.array(rows[low:high] - first)))
                first += size
            schema = pa.schema([file.schema_arrow.field(column) for column in columns])
        return pa.concat_tables([schema.empty_table(), *parts])

    def iter_batches(
        self, ref: ObjectRef, columns: Sequence[str] | None = None, rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        """Stream a Parquet object in record batches of at most ``rows`` rows."""
        file = self.open_parquet(ref)
        try:
            yield from file.iter_batches(
                batch_size=rows, columns=list(columns) if columns is not None else None
            )
        finally:
            # Nothing was written, so nothing is lost. If the reader stops early, Python closes the
            # file at some later time, when no caller can catch an error.
            with suppress(OSError):
                file.close()


def contents(column: Any) -> list[Any]:
    """Return a column's values; lone surrogates in text, which are not valid UTF-8, are kept."""
    if not pa.types.is_string(column.type):
        return list(column.to_pylist())
    data = column.cast(pa.binary()).to_pylist()
    return [None if one is None else str(one, "utf-8", "surrogatepass") for one in data]


def valid_text(column: Any) -> Any:
    """Return a text column as valid UTF-8, with U+FFFD for lone surrogates; others unchanged."""
    if not pa.types.is_string(column.type):
        return column
    data = column.cast(pa.binary())
    try:
        return data.cast(pa.string())
    except pa.ArrowInvalid:
        texts = [
            None if one is None else one.decode("utf-8", "replace") for one in data.to_pylist()
        ]
        return pa.array(texts, pa.string())


def read_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file's content in chunks, for hashing or copying in bounded memory."""
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
