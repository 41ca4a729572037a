"""Which items still need a vector: set arithmetic over keys, all of it in Arrow and numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.encode.decoding import Failure
from mmindex.encode.shards import Shard, binary_keys
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LiveKeys:
    """The keys of a corpus table.

    Attributes:
        unique: distinct keys in order of first appearance, binary of 32 bytes.
        first: bool (rows,): whether a row is the first with its key.
    """

    unique: pa.FixedSizeBinaryArray
    first: Mask


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is there and what is not.

    Attributes:
        kept: shards that hold at least one live key.
        failed: live items that are known to fail (on a retry, among ``rows`` as well).
        reused: number of live items with a vector.
        rows: bool (rows of the table,): the rows to encode.
    """

    kept: tuple[ObjectRef, ...]
    failed: dict[str, Failure]
    reused: int
    rows: Mask

    @property
    def missing(self) -> int:
        """How many items are to be encoded."""
        return int(np.count_nonzero(self.rows))


def live_keys(objects: Objects, table: ObjectRef) -> LiveKeys:
    """Read the key column of ``images`` or ``captions``: 36 bytes a row, and 32 a distinct key."""
    batches = [binary_keys(batch["key"]) for batch in objects.iter_batches(table, ["key"])]
    keys = pa.chunked_array(batches, pa.binary(32)).combine_chunks()
    if isinstance(keys, pa.ChunkedArray):  # pyarrow gives chunks for an empty column
        keys = pa.array([], pa.binary(32))
    encoded = keys.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    # Codes count up in order of first appearance: a row is a first one where the maximum rises.
    highest = np.maximum.accumulate(codes) if len(codes) else codes
    first = np.ones(len(codes), dtype=np.bool_)
    first[1:] = highest[1:] > highest[:-1]
    return LiveKeys(encoded.dictionary, first)


def plan_backlog(live: LiveKeys, shards: Sequence[Shard], *, retry: bool = False) -> Backlog:
    """Compare what is live with what the shards hold; a shard that adds nothing is left out.

    Earlier shards win: pass the published version's before those that a killed run left. But a
    vector wins over a failure, wherever it stands: another try may have succeeded.

    Args:
        live: what needs a vector.
        shards: what there is.
        retry: encode anew what is known to fail.
    """
    covered = np.zeros(len(live.unique), dtype=np.bool_)
    failed_at = np.zeros(len(live.unique), dtype=np.bool_)
    failed: dict[str, Failure] = {}
    used = np.zeros(len(shards), dtype=np.bool_)
    places = places_of([shard.keys for shard in shards], live)
    for number, rows in enumerate(places):
        new_rows = rows[rows >= 0]
        new_rows = new_rows[~covered[new_rows]]
        used[number] = len(new_rows) > 0
        covered[new_rows] = True
    failed_places = places_of([binary_keys(shard.failed) for shard in shards], live)
    for number, failures in enumerate(failed_places):
        new_failures = failures[failures >= 0]
        new_failures = new_failures[~(covered[new_failures] | failed_at[new_failures])]
        used[number] |= len(new_failures) > 0
        failed_at[new_failures] = True
        for place in new_failures.tolist():
            key = live.unique[place].as_py().hex()
            failed[key] = shards[number].failed[key]
    wanted = live.first.copy()
    wanted[live.first] = ~covered if retry else ~(covered | failed_at)
    kept = tuple(shard.ref for shard, fine in zip(shards, used.tolist(), strict=True) if fine)
    return Backlog(kept, failed, int(np.count_nonzero(covered)), wanted)


def places_of(groups: Sequence[pa.Array], live: LiveKeys) -> list[NDArray[np.int64]]:
    """Where each group's keys (binary) stand among the distinct live keys; -1: nowhere.

    All groups in one pass: Arrow hashes the live keys anew for every call.
    """
    if not groups:
        return []
    everything = pa.concat_arrays(groups)
    found = pc.index_in(everything, value_set=live.unique).fill_null(-1)
    places = found.to_numpy(zero_copy_only=False).astype(np.int64)
    edges = np.cumsum([len(group) for group in groups])[:-1]
    return np.split(places, edges)


def read_rows(
    objects: Objects, table: ObjectRef, column: str, rows: Mask
) -> Iterator[tuple[str, bytes]]:
    """Stream (key, UTF-8 bytes of ``column``) of the rows chosen.

    Bytes, because a text may hold lone surrogates, which Arrow's strings refuse to give back.
    """
    start = 0
    for batch in objects.iter_batches(table, ["key", column], rows=4096):
        wanted = np.flatnonzero(rows[start : start + batch.num_rows])
        start += batch.num_rows
        if len(wanted):
            chosen = batch.take(pa.array(wanted))
            values = chosen[column].cast(pa.binary()).to_pylist()
            yield from zip(chosen["key"].to_pylist(), values, strict=True)
