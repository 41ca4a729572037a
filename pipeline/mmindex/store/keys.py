"""The keys of a corpus, stored in 32 bytes each and found by sorting, without a hash table.

NumPy compares byte strings without their trailing zero bytes. All keys have the same length, so the
comparison is still correct, but an element taken out of an array may be shorter. Keys are put into
these arrays and never read back.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError, os_errors
from mmindex.store.buckets import KEYED, Buckets, ranges_for
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import REPAIR_HINT, Objects

KEY_BYTES = 32
# The number of keys in memory as hex at a time.
_READ_ROWS = 8_192
_BLOCK_ROWS = 1 << 20
_COLUMN = pa.schema([pa.field("key", pa.string())])

Keys = NDArray[np.bytes_]  # S32
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DistinctKeys:
    """The distinct keys of a column.

    Attributes:
        unique: S32 (u,): the distinct keys, ascending.
        rows: int64 (u,): the first row with each key.
        of_rows: number of rows in the column.
    """

    unique: Keys
    rows: NDArray[np.int64]
    of_rows: int


def binary_keys(texts: Sequence[str]) -> Keys:
    """Convert keys from hex to 32 bytes each: S32 (n,), read-only.

    Raises:
        DataError: a value is not a sha256.
    """
    try:
        joined = bytes.fromhex("".join(texts))
        even = all(len(text) == 2 * KEY_BYTES for text in texts)
    except (ValueError, TypeError) as error:
        raise DataError(f"a key is not a sha256 in hex: {error}") from error
    if not even or len(joined) != KEY_BYTES * len(texts):
        raise DataError("a key is not a sha256 in hex")
    return np.frombuffer(joined, f"S{KEY_BYTES}")


def read_keys(objects: Objects, table: ObjectRef) -> Keys:
    """Read the key of every row of a table or shard, in order; see :func:`batch_keys`."""
    return batch_keys(table.name, objects.iter_batches(table, ["key"], rows=_READ_ROWS))


def batch_keys(name: str, batches: Iterable[pa.RecordBatch]) -> Keys:
    """Read the key of every row from the batches of an object, in order: S32 (rows,).

    Raises:
        DataError: a value is not a sha256; the message has the object's name.
    """
    try:
        return _joined(batch["key"] for batch in batches)
    except DataError as error:
        raise DataError(f"{name}: {error.message}", error.hint or REPAIR_HINT) from error


def column_keys(column: pa.ChunkedArray[Any]) -> Keys:
    """Return the keys of a column in memory: S32 (n,)."""
    return _joined(_slices(column))


def column_blocks(column: pa.ChunkedArray[Any]) -> Iterator[Keys]:
    """Yield the keys of a column in blocks: S32 (m,)."""
    yield from _blocks(binary_keys(part.to_pylist()) for part in _slices(column))


def table_blocks(objects: Objects, table: ObjectRef) -> Iterator[Keys]:
    """Yield the key of every row of a table or shard in blocks; raises as :func:`batch_keys`."""
    batches = objects.iter_batches(table, ["key"], rows=_READ_ROWS)
    yield from _blocks(batch_keys(table.name, [batch]) for batch in batches)


def _slices(column: pa.ChunkedArray[Any]) -> Iterator[pa.Array[Any]]:
    for chunk in column.chunks:
        for start in range(0, len(chunk), _READ_ROWS):
            yield chunk.slice(start, _READ_ROWS)


def _blocks(parts: Iterable[Keys]) -> Iterator[Keys]:
    """Join parts, so that each block is divided into ranges at once."""
    block: list[Keys] = []
    for part in parts:
        block.append(part)
        if sum(map(len, block)) >= _BLOCK_ROWS:
            yield np.concatenate(block)
            block = []
    if block:
        yield np.concatenate(block)


def _joined(parts: Iterable[pa.Array[Any]]) -> Keys:
    return np.concatenate([binary_keys(()), *(binary_keys(part.to_pylist()) for part in parts)])


def distinct(keys: Keys) -> DistinctKeys:
    """Sort keys S32 (n,); uses 45 more bytes per key temporarily, then 40."""
    # numpy.unique needs 113 bytes per key.
    order = np.argsort(keys, kind="stable")
    ascending = keys[order]
    first = np.ones(len(keys), dtype=np.bool_)
    first[1:] = ascending[1:] != ascending[:-1]
    if not first.all():
        ascending, order = ascending[first], order[first]
    return DistinctKeys(ascending, order, of_rows=len(keys))


def live_keys(objects: Objects, table: ObjectRef) -> DistinctKeys:
    """Return the distinct keys of ``images`` or ``captions``."""
    return distinct(read_keys(objects, table))


def count_distinct(objects: Objects, table: ObjectRef) -> int:
    """Return the number of distinct keys of ``images`` or ``captions``, with limited memory."""
    return sum(len(rows) for rows in _first_rows(objects, table))


def _first_rows(objects: Objects, table: ObjectRef) -> Iterator[Int64]:
    """Yield the first row with each distinct key, for one range of keys after the other."""
    folder, row = objects.layout.staging_dir, 0
    with Buckets(folder, KEYED, ranges_for(table.rows)) as buckets:
        for keys in table_blocks(objects, table):
            buckets.put_keys(keys, np.arange(row, row + len(keys)))
            row += len(keys)
        for records in buckets.take_all():
            yield records["number"][distinct(records["key"]).rows]


def unique_keys(
    objects: Objects, table: ObjectRef, live: DistinctKeys | None = None
) -> pa.ChunkedArray[Any]:
    """Return a table's distinct keys in hex, in order of first appearance: row i gets FAISS id i.

    The keys of a large table are in a scratch file that is mapped into memory.

    Args:
        objects: the store's objects.
        table: ``images`` or ``captions``.
        live: its distinct keys, if they have already been read.
    """
    firsts = [live.rows] if live is not None else _first_rows(objects, table)
    batches = objects.iter_batches(table, ["key"], rows=_READ_ROWS)
    folder, count = objects.layout.staging_dir, ranges_for(table.rows)
    with Buckets(folder, np.dtype("<i8"), count) as buckets:
        in_range = max(1, -(-table.rows // count))
        for rows in firsts:
            buckets.put(rows // in_range, rows)
        kept = _kept(batches, map(np.sort, buckets.take_all()), in_range)
        return _column(kept) if count == 1 else _mapped_column(folder, kept)


def _kept(
    batches: Iterable[pa.RecordBatch], ranges: Iterator[Int64], in_range: int
) -> Iterator[pa.Array[Any]]:
    """Yield the keys of each batch in the wanted rows, which come sorted, range by range."""
    start, ready, rows = 0, 0, np.empty(0, np.int64)
    for batch in batches:
        stop = start + batch.num_rows
        while ready < stop:
            rows = np.concatenate([rows, next(ranges)])
            ready += in_range
        end = np.searchsorted(rows, stop)
        mask = np.zeros(batch.num_rows, dtype=np.bool_)
        mask[rows[:end] - start] = True
        rows, start = rows[end:], stop
        yield batch["key"].filter(pa.array(mask))


def _column(parts: Iterable[pa.Array[Any]]) -> pa.ChunkedArray[Any]:
    return pa.chunked_array(list(parts), pa.string())


def _mapped_column(folder: Path, parts: Iterable[pa.Array[Any]]) -> pa.ChunkedArray[Any]:
    """Write a column to a scratch file and map it; the file is removed and stays readable."""
    path = folder / f"{uuid.uuid4().hex}.arrow"
    try:
        with os_errors(path):
            with path.open("wb") as file, pa.ipc.new_file(file, _COLUMN) as writer:
                for part in parts:
                    writer.write_batch(pa.record_batch([part], schema=_COLUMN))
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()["key"]
    finally:
        path.unlink(missing_ok=True)


def places_of(keys: Keys, known: DistinctKeys) -> NDArray[np.int64]:
    """Return the positions of keys S32 (n,) in ``known``: int64 (n,); -1 if not found."""
    if not len(known.unique):
        return np.full(len(keys), -1, dtype=np.int64)
    # Sorted searches find the previous search's data in the CPU cache: twice as fast.
    order = np.argsort(keys)
    places = np.empty(len(keys), dtype=np.int64)
    places[order] = np.searchsorted(known.unique, keys[order])
    places[places == len(known.unique)] = 0
    places[known.unique[places] != keys] = -1
    return places
