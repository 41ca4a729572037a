"""Stream vectors from embedding shards in id order, with limited memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError, InternalError, os_errors
from mmindex.index.exact import block_rows
from mmindex.store.buckets import KEYED, Buckets, mapped, ranges_for, scratch_file
from mmindex.store.keys import column_blocks, distinct, places_of, read_keys
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects

IDS_SCHEMA = pa.schema([pa.field("key", pa.string())])  # null if the vector of this id was removed
# Bytes of float16 vectors collected per step. Keys are mostly in the order of the shards, so each
# shard is read about once. With keys in random order, every 128 MiB needs a pass over all shards.
_CHUNK_BYTES = 128 << 20
_ID_ROWS = 65_536  # rows per Parquet row group of ids: 4 MB of hex digits
_READ_ROWS = 8_192  # rows to decode per step
_BLOCK = 1 << 20
_PLACED = np.dtype([("id", "<i8"), ("shard", "<i4"), ("row", "<i4")])
# Rounding to float16 changes the length of a unit vector by less than this.
_LENGTH_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Located:
    """The locations of vectors by key.

    Attributes:
        keys: the keys, in the order of their ids.
        dim: dimensions of the vectors.
        shard: int32 (n,): the number of the shard.
        row: int32 (n,): the row in the shard.
    """

    keys: pa.ChunkedArray[Any]
    dim: int
    shard: NDArray[np.int32]
    row: NDArray[np.int32]


def as_keys(keys: Iterable[str] | pa.Array[Any] | pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """Return keys as one Arrow column."""
    if isinstance(keys, pa.ChunkedArray):
        return keys.cast(pa.string())
    if isinstance(keys, pa.Array):
        return pa.chunked_array([keys.cast(pa.string())])
    return pa.chunked_array([pa.array(list(keys), type=pa.string())])


def locate(objects: Objects, keys: pa.ChunkedArray[Any], shards: Sequence[ObjectRef]) -> Located:
    """Locate the vector of each key. For a key in two shards, the first one is used.

    Keys are compared by range of their values, so that only the keys of one range are in memory at
    a time.

    Raises:
        InternalError: a key has no vector or occurs twice, or there are no shards.
        DataError: a shard is damaged, or its dimensions differ from the others'.
    """
    if not shards:
        raise InternalError("no embedding shards to index")
    dims = sorted({_dim(objects, ref) for ref in shards})
    if len(dims) != 1:
        raise DataError(f"embedding shards differ in dimensions: {dims}", "run `mmindex build`")
    folder, n = objects.layout.staging_dir, len(keys)
    count = ranges_for(n)
    with Buckets(folder, _PLACED, count) as placed:
        in_range = max(1, -(-n // count))
        for records in _places(objects, keys, shards, count):
            placed.put(records["id"] // in_range, records)
        places = _in_id_order(folder, placed, count)
    lost = _lost(places)
    if len(lost):
        first = keys[int(lost[0])].as_py()
        raise InternalError(f"{len(lost)} keys have no vector; the first one is {first}")
    return Located(keys, dims[0], places["shard"], places["row"])


def _places(
    objects: Objects, keys: pa.ChunkedArray[Any], shards: Sequence[ObjectRef], count: int
) -> Iterator[NDArray[Any]]:
    """Yield the place of each id's vector, for one range of keys after the other."""
    folder, first = objects.layout.staging_dir, 0
    with Buckets(folder, KEYED, count) as wanted, Buckets(folder, KEYED, count) as there:
        for block in column_blocks(keys):
            wanted.put_keys(block, np.arange(first, first + len(block)))
            first += len(block)
        for number, ref in enumerate(shards):
            block = read_keys(objects, ref)
            there.put_keys(block, (number << 32) + np.arange(len(block)))
        for ours, theirs in zip(wanted.take_all(), there.take_all(), strict=True):
            known = distinct(ours["key"])
            if len(known.unique) != len(ours):
                raise InternalError("a key occurs twice")
            places = places_of(theirs["key"], known)
            found = np.flatnonzero(places >= 0)[::-1]  # what is assigned last stays
            at = np.full(len(ours), -1, dtype=np.int64)
            at[known.rows[places[found]]] = theirs["number"][found]
            placed = np.empty(len(ours), _PLACED)
            placed["id"], placed["shard"], placed["row"] = ours["number"], at >> 32, at & 0xFFFFFFFF
            yield placed


def _in_id_order(folder: Path, placed: Buckets, count: int) -> NDArray[Any]:
    """Return the places in the order of ids; those of a large corpus are mapped from a file."""
    ordered = (records[np.argsort(records["id"])] for records in placed.take_all())
    if count == 1:
        return next(ordered)
    with os_errors(folder), scratch_file(folder) as file:
        for records in ordered:
            file.write(records.tobytes())
        return mapped(file, _PLACED)


def _lost(places: NDArray[Any]) -> NDArray[np.int64]:
    parts = range(0, len(places), _BLOCK)
    lost = (at + np.flatnonzero(places["shard"][at : at + _BLOCK] < 0) for at in parts)
    return np.concatenate([np.empty(0, np.int64), *lost])


def _dim(objects: Objects, ref: ObjectRef) -> int:
    with objects.open_parquet(ref) as file:
        kind = file.schema_arrow.field("vector").type
    if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float16():
        raise DataError(f"{ref.name}: vectors are {kind}, not a fixed-size list of float16")
    return int(kind.list_size)


def id_batches(keys: pa.ChunkedArray[Any]) -> Iterator[pa.RecordBatch]:
    """Yield the ``ids`` table: row i has the key of id i; null if its vector was removed."""
    yield from pa.table([keys], schema=IDS_SCHEMA).to_batches(max_chunksize=_ID_ROWS)


def vector_blocks(
    objects: Objects, located: Located, shards: Sequence[ObjectRef]
) -> Iterator[NDArray[np.float16]]:
    """Stream the vectors in the order of ids: float16 (m, dim), each finite and of unit length.

    Raises:
        DataError: a vector is not finite or of unit length; the message names its key.
    """
    chunk = max(1, _CHUNK_BYTES // (2 * located.dim))
    for start in range(0, len(located.shard), chunk):
        stop = min(start + chunk, len(located.shard))
        out = np.empty((stop - start, located.dim), dtype=np.float16)
        for number in np.unique(located.shard[start:stop]).tolist():
            mine = np.flatnonzero(located.shard[start:stop] == number)
            _fill(out, mine, located.row[start:stop][mine], objects, shards[number])
        _check(out, start, located.keys)
        yield out


def numbered_blocks(
    objects: Objects, located: Located, shards: Sequence[ObjectRef]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """Yield :func:`vector_blocks` with ids 0, 1, ..., in blocks for a scan."""
    step, first = block_rows(located.dim), 0
    for block in vector_blocks(objects, located, shards):
        for start in range(0, len(block), step):
            part = block[start : start + step]
            yield np.arange(first, first + len(part)), part
            first += len(part)


def _fill(
    out: NDArray[np.float16],
    places: NDArray[np.int64],
    rows: NDArray[np.int32],
    objects: Objects,
    ref: ObjectRef,
) -> None:
    """Copy rows of a shard to their positions, decoding a part of the shard at a time."""
    order = np.argsort(rows, kind="stable")
    places, rows = places[order], rows[order]
    first = 0
    for batch in objects.iter_batches(ref, ["vector"], rows=_READ_ROWS):
        low, high = np.searchsorted(rows, (first, first + batch.num_rows))
        if low < high:
            column = cast("pa.FixedSizeListArray[Any, Any]", batch.column(0))
            if column.null_count:
                raise DataError(f"{ref.name}: a vector is missing", "run `mmindex check --full`")
            values = column.flatten().to_numpy(zero_copy_only=True).reshape(-1, out.shape[1])
            out[places[low:high]] = values[rows[low:high] - first]
        first += batch.num_rows
        if high == len(rows):
            return
    raise InternalError(f"{ref.name}: has {first} rows, but {ref.rows} are listed")


def _check(block: NDArray[np.float16], first: int, keys: pa.ChunkedArray[Any]) -> None:
    """Check vectors: faiss accepts NaN, and inner products are cosines only for unit vectors."""
    for start in range(0, len(block), _READ_ROWS):
        part = block[start : start + _READ_ROWS].astype(np.float32)
        lengths = np.sqrt(np.einsum("nd,nd->n", part, part))
        # Written so that NaN counts as bad.
        bad = np.flatnonzero(~(np.abs(lengths - 1.0) <= _LENGTH_TOLERANCE))
        if len(bad):
            key = keys[first + start + int(bad[0])].as_py()
            raise DataError(
                f"the vector of {key} has length {lengths[bad[0]]:.4g}, not 1",
                "encode again: the embedding shard was not written by `mmindex encode`",
            )
