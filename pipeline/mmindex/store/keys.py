"""The keys of a corpus, held as 32 bytes each and found by sorting: no hash table beside them.

NumPy's byte strings compare without their trailing zero bytes. Keys are all of the same length, so
that equal ones are still those that are equal; but an element taken out of an array may be shorter.
Keys go into these arrays and are never read back.
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
# So many keys are held in hex at once.
_READ_ROWS = 8_192

Keys = NDArray[np.bytes_]  # S32


@dataclass(frozen=True, slots=True)
class DistinctKeys:
    """Which keys a column holds.

    Attributes:
        unique: S32 (u,): the distinct keys, ascending.
        rows: int64 (u,): the first row that has each.
        of_rows: how many rows the column has.
    """

    unique: Keys
    rows: NDArray[np.int64]
    of_rows: int


def binary_keys(texts: Sequence[str]) -> Keys:
    """Keys in hex as 32 bytes each: S32 (n,), read-only.

    Raises:
        DataError: one is not a sha256.
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
    """The key of every row of a table or shard, in order; see :func:`batch_keys`."""
    return batch_keys(table.name, objects.iter_batches(table, ["key"], rows=_READ_ROWS))


def batch_keys(name: str, batches: Iterable[pa.RecordBatch]) -> Keys:
    """The key of every row of an object that is being read, in order: S32 (rows,).

    Raises:
        DataError: one is not a sha256; the message has the object's name.
    """
    try:
        return _joined(batch["key"] for batch in batches)
    except DataError as error:
        raise DataError(f"{name}: {error.message}", error.hint or REPAIR_HINT) from error


def column_keys(column: pa.ChunkedArray[Any]) -> Keys:
    """The keys of a column in memory: S32 (n,)."""
    starts = range(0, len(column), _READ_ROWS)
    return _joined(column.slice(start, _READ_ROWS) for start in starts)


def _joined(parts: Iterable[pa.Array[Any] | pa.ChunkedArray[Any]]) -> Keys:
    return np.concatenate([binary_keys(()), *(binary_keys(part.to_pylist()) for part in parts)])


def distinct(keys: Keys) -> DistinctKeys:
    """Sort keys S32 (n,): takes 45 bytes a key beside them for a moment, then 40."""
    # numpy.unique does the same in 113 bytes a key.
    order = np.argsort(keys, kind="stable")
    ascending = keys[order]
    first = np.ones(len(keys), dtype=np.bool_)
    first[1:] = ascending[1:] != ascending[:-1]
    if not first.all():
        ascending, order = ascending[first], order[first]
    return DistinctKeys(ascending, order, of_rows=len(keys))


def live_keys(objects: Objects, table: ObjectRef) -> DistinctKeys:
    """The keys of ``images`` or ``captions``."""
    return distinct(read_keys(objects, table))


def unique_keys(
    objects: Objects, table: ObjectRef, live: DistinctKeys | None = None
) -> pa.ChunkedArray[Any]:
    """The distinct keys of a table in hex, in order of first appearance: row i gets FAISS id i.

    Args:
        objects: where the table lies.
        table: ``images`` or ``captions``.
        live: its keys, where they have been read before.
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
    """Where keys S32 (n,) stand among the known ones: int64 (n,); -1: nowhere."""
    if not len(known.unique):
        return np.full(len(keys), -1, dtype=np.int64)
    # In order, one search finds in the cache what the one before it went through: twice as fast.
    order = np.argsort(keys)
    places = np.empty(len(keys), dtype=np.int64)
    places[order] = np.searchsorted(known.unique, keys[order])
    places[places == len(known.unique)] = 0
    places[known.unique[places] != keys] = -1
    return places
