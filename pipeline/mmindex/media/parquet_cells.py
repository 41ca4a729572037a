"""Images inside Parquet files, read in place: ``FILE.parquet!COLUMN/ROW``.

A column contains bytes, or a struct with a field ``bytes`` (the image feature of Hugging Face:
https://huggingface.co/docs/datasets/about_dataset_features#image-feature).
"""

from __future__ import annotations

import bisect
import functools
import threading
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmindex.core.errors import DataError, os_errors
from mmindex.core.records import ItemError, Reason, Stamp
from mmindex.media.archive import uri_of_member
from mmindex.media.files import is_remote, open_file, stamp_of

_OPEN_FILES: Final = 8
# Rows are read in order by a few threads, so neighbours are in the same row group.
_KEPT_GROUPS: Final = 2
# pyarrow's file objects are not thread-safe, and decompression releases the GIL.
_LOCK = threading.Lock()


def uri_of_cell(path: str, column: str, row: int) -> str:
    """Return the URI of an image; ``path`` is the location of the table."""
    return uri_of_member(path, f"{column}/{row}")


def split_cell(rest: str) -> tuple[str, int]:
    """Parse the column and row after the ``!``.

    Raises:
        ItemError: the text is invalid.
    """
    column, _, row = rest.rpartition("/")
    if not column or not (row.isascii() and row.isdigit()):
        raise ItemError(Reason.MISSING, f"{rest[:80]!r} is not COLUMN/ROW")
    return column, int(row)


def open_parquet(path: str) -> pq.ParquetFile:
    """Open a table; close it after use.

    Raises:
        pyarrow.ArrowException: it is not a Parquet file.
        OSError, MmindexError: it cannot be read.
    """
    source = open_file(path) if is_remote(path) else path
    return pq.ParquetFile(source, page_checksum_verification=True)


@dataclass(frozen=True, slots=True)
class _Open:
    file: pq.ParquetFile
    ends: tuple[int, ...]  # first row number after each row group


@functools.lru_cache(maxsize=_OPEN_FILES)
def _open(path: str, stamp: Stamp) -> _Open:  # noqa: ARG001  # the stamp is part of the cache key
    try:
        with os_errors(path):
            # Not memory-mapped: files can be larger than the address space of decode workers.
            file = open_parquet(path)
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error
    groups = range(file.metadata.num_row_groups)
    return _Open(file, tuple(accumulate(file.metadata.row_group(n).num_rows for n in groups)))


@functools.lru_cache(maxsize=_KEPT_GROUPS)
def _group(path: str, stamp: Stamp, column: str, number: int) -> Any:
    file = _open(path, stamp).file
    field = file.schema_arrow.field(column)
    wanted = f"{column}.bytes" if pa.types.is_struct(field.type) else column
    values = file.read_row_group(number, columns=[wanted])[column].combine_chunks()
    if not pa.types.is_struct(field.type):
        return values
    return pc.struct_field(values, "bytes")


def read_cell(path: str, column: str, row: int, max_bytes: int) -> bytes:
    """Read the bytes of the image in ``row`` of ``column``.

    Args:
        path: the absolute path of the file.
        column: a binary column, or a struct with ``bytes``.
        row: from 0.
        max_bytes: the size limit.

    Raises:
        ItemError: there is no such cell, or it is empty, damaged or too large.
        DataError: the file is not a Parquet file.
        MmindexError: it cannot be opened.
    """
    stamp = stamp_of(path)
    with _LOCK:
        opened = _open(path, stamp)
        number = bisect.bisect_right(opened.ends, row)
        if number >= len(opened.ends) or column not in opened.file.schema_arrow.names:
            raise ItemError(Reason.MISSING, f"the file has no row {row} in column {column!r}")
        first = opened.ends[number - 1] if number else 0
        try:
            value = _group(path, stamp, column, number)[row - first]
        except (pa.ArrowException, OSError) as error:
            detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ItemError(Reason.CORRUPT, detail) from error
    if not value.is_valid:
        raise ItemError(Reason.MISSING, "the cell is null")
    data: bytes = value.as_py()
    if len(data) > max_bytes:
        raise ItemError(Reason.TOO_LARGE, f"{len(data)} bytes, the limit is {max_bytes}")
    return data
