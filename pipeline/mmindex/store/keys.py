"""The keys of a corpus, stored in 32 bytes each and found by sorting, without a hash table.

NumPy compares byte strings without their trailing zero bytes. All keys have the same length, so the
comparison is still correct, but an element taken out of an array may be shorter. Keys are put into
these arrays and never read back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import REPAIR_HINT, Objects

KEY_BYTES = 32
# The number of keys in memory as hex at a time.
_READ_ROWS = 8_192

Keys = NDArray[np.bytes_]  # S32


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
    starts = range(0, len(column), _READ_ROWS)
    return _joined(column.slice(start, _READ_ROWS) for start in starts)


def _joined(parts: Iterable[pa.Array[Any] | pa.ChunkedArray[Any]]) -> Keys:
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


def unique_keys(
    objects: Objects, table: ObjectRef, live: DistinctKeys | None = None
) -> pa.ChunkedArray[Any]:
    """Return a table's distinct keys in hex, in order of first appearance: row i gets FAISS id i.

    Args:
        objects: the store's objects.
        table: ``images`` or ``captions``.
        live: its distinct keys, if they have already been read.
    """
    live = live or live_keys(objects, table)
    first = np.zeros(live.of_rows, dtype=np.bool_)
    first[live.rows] = True
    chunks, start = [], 0
    for batch in objects.iter_batches(table, ["key"], rows=_READ_ROWS):
        chunks.append(batch["key"].filter(pa.array(first[start : start + batch.num_rows])))
        start += batch.num_rows
    return pa.chunked_array(chunks, pa.string())


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
