"""Shards of fetched images: Parquet files with the status and bytes of each address in a row.

Parquet has advantages over tar: the URL, status, sha256 and bytes are in one row and cannot become
inconsistent; a row without bytes (a 404, an opt-out) needs no separate file; a second run can read
the other columns without the bytes; and pages have checksums. A shard is written completely or not
at all, and never changes: a later run adds shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from mmindex.core.errors import DataError, os_errors
from mmindex.fetch.images import Fetched
from mmindex.fetch.outcome import FetchStatus
from mmindex.store.layout import Layout
from mmindex.store.publish import StagedFile

BYTES_COLUMN: Final = "bytes"
SCHEMA: Final = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("http_status", pa.int32(), nullable=False),
        pa.field("tries", pa.int32(), nullable=False),
        pa.field("fetched_at", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("final_url", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        # Null if nothing was stored, or if an earlier row has the same bytes.
        pa.field(BYTES_COLUMN, pa.binary()),
        pa.field("has_bytes", pa.bool_(), nullable=False),
    ]
)
_STATE_COLUMNS: Final = ["url", "status", "detail", "http_status", "fetched_at", "key", "has_bytes"]
# Reading an image reads its whole row group, so groups are small, but large enough for few pages.
_GROUP_BYTES: Final = 4 << 20
_GROUP_ROWS: Final = 256
_STATE_ROWS: Final = 16_384


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of shard ``number``."""
    return folder / f"{number:06d}.parquet"


def list_shards(folder: Path) -> list[int]:
    """Return the numbers of the existing shards, ascending."""
    return sorted(int(path.stem) for path in folder.glob("[0-9]*.parquet") if path.stem.isdigit())


@dataclass(frozen=True, slots=True)
class State:
    """A shard's row without the image bytes."""

    url: str
    status: FetchStatus
    detail: str
    http_status: int
    fetched_at_ms: int
    key: str
    row: int
    has_bytes: bool


def read_states(folder: Path, number: int) -> Iterator[State]:
    """Stream a shard's rows without their bytes.

    Raises:
        DataError: the shard is damaged.
    """
    path = shard_path(folder, number)
    row = 0
    try:
        with os_errors(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(_STATE_ROWS, columns=_STATE_COLUMNS):
                times = batch.column("fetched_at").cast(pa.int64()).to_pylist()
                columns = [batch.column(name).to_pylist() for name in _STATE_COLUMNS]
                for values, time in zip(zip(*columns, strict=True), times, strict=True):
                    url, status, detail, code, _, key, has_bytes = values
                    yield State(url, FetchStatus(status), detail, code, time, key, row, has_bytes)
                    row += 1
    except (pa.ArrowInvalid, ValueError) as error:
        raise DataError(
            f"{path}: damaged: {error}", "remove this file: its images are then downloaded again"
        ) from error


class ShardWriter:
    """A shard being written. Use it as a context manager and publish it to keep it."""

    def __init__(self, layout: Layout, folder: Path, number: int) -> None:
        self._staged = StagedFile(layout)
        self._target = shard_path(folder, number)
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._staged, mode="w"),
            SCHEMA,
            # Photos are compressed already; the other columns are not.
            compression={name: "none" if name == BYTES_COLUMN else "zstd" for name in SCHEMA.names},
            use_dictionary=["status", "detail"],
            write_statistics=False,
            write_page_checksum=True,
        )
        self._group: list[tuple[Fetched, bool, int]] = []
        self._group_bytes = 0
        self.rows = 0
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._staged.__exit__(None, None, None)

    def add(self, fetched: Fetched, has_bytes: bool, fetched_at_ms: int) -> bool:
        """Add a row; return True if :meth:`write_group` should be called now."""
        self._group.append((fetched, has_bytes, fetched_at_ms))
        self._group_bytes += len(fetched.data) if has_bytes else 0
        self.size_bytes += len(fetched.data) if has_bytes else 0
        self.rows += 1
        return self._group_bytes >= _GROUP_BYTES or len(self._group) >= _GROUP_ROWS

    def write_group(self) -> None:
        """Write the pending rows as one row group.

        Raises:
            StorageError: the disk is full.
        """
        if not self._group:
            return
        fetched = [row for row, _, _ in self._group]
        columns = [
            [row.url for row in fetched],
            [str(row.status) for row in fetched],
            [row.detail for row in fetched],
            [row.http_status for row in fetched],
            [row.tries for row in fetched],
            [time for _, _, time in self._group],
            [row.final_url for row in fetched],
            [row.key for row in fetched],
            [len(row.data) for row in fetched],
            [row.data if kept else None for row, kept, _ in self._group],
            [kept for _, kept, _ in self._group],
        ]
        arrays = [
            pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
        self._group, self._group_bytes = [], 0

    def publish(self) -> None:
        """Write the pending rows, sync the shard and rename it.

        Raises:
            StorageError: the disk is full.
        """
        self.write_group()
        self._writer.close()
        self._staged.publish(self._target)
