"""Determine which items still need a vector, with set arithmetic over keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.encode.decoding import Failure
from mmindex.encode.shards import Shard
from mmindex.store.keys import DistinctKeys, binary_keys, places_of
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects

Mask = NDArray[np.bool_]

# What is encoded: an image's uri or a text.
CONTENT = pa.schema([pa.field("key", pa.string()), pa.field("content", pa.binary())])


@dataclass(frozen=True, slots=True)
class Backlog:
    """Existing and missing vectors.

    Attributes:
        kept: shards with the vector or the failure of a live key that no earlier shard has.
        failed: live items that are known to fail (on a retry, also among ``rows``).
        reused: number of live items with a vector.
        rows: bool (rows of the table,): the rows to encode.
    """

    kept: tuple[ObjectRef, ...]
    failed: dict[str, Failure]
    reused: int
    rows: Mask

    @property
    def missing(self) -> int:
        """The number of items to encode."""
        return int(np.count_nonzero(self.rows))


def plan_backlog(live: DistinctKeys, shards: Sequence[Shard], *, retry: bool = False) -> Backlog:
    """Compare live items with the shards' content; a shard that adds nothing is left out.

    Earlier shards take precedence: pass the published version's before those of a killed run. But a
    vector takes precedence over a failure in any shard, because another try may have succeeded.

    Args:
        live: keys that need a vector.
        shards: the existing shards.
        retry: encode items again that are known to fail.
    """
    covered = np.zeros(len(live.unique), dtype=np.bool_)
    failed_at = np.zeros(len(live.unique), dtype=np.bool_)
    failed: dict[str, Failure] = {}
    used = np.zeros(len(shards), dtype=np.bool_)
    for number, shard in enumerate(shards):
        places = places_of(shard.keys, live)
        places = places[places >= 0]
        used[number] = not covered[places].all()
        covered[places] = True
    for number, shard in enumerate(shards):
        places = places_of(binary_keys(list(shard.failed)), live)
        for key, place in zip(shard.failed, places.tolist(), strict=True):
            if place >= 0 and not (covered[place] or failed_at[place]):
                used[number] = failed_at[place] = True
                failed[key] = shard.failed[key]
    wanted = np.zeros(live.of_rows, dtype=np.bool_)
    wanted[live.rows] = ~covered if retry else ~(covered | failed_at)
    kept = tuple(shard.ref for shard, fine in zip(shards, used.tolist(), strict=True) if fine)
    return Backlog(kept, failed, int(np.count_nonzero(covered)), wanted)


def read_rows(
    objects: Objects, table: ObjectRef, column: str, rows: Mask
) -> Iterator[tuple[str, bytes]]:
    """Stream (key, UTF-8 bytes of ``column``) of the chosen rows."""
    for batch in read_batches(objects, table, column, rows):
        yield from zip(batch["key"].to_pylist(), batch["content"].to_pylist(), strict=True)


def read_batches(
    objects: Objects, table: ObjectRef, column: str, rows: Mask
) -> Iterator[pa.RecordBatch]:
    """Stream the chosen rows as batches of :data:`CONTENT`: the key, and ``column`` as bytes.

    Bytes, because a text may contain lone surrogates, which Arrow cannot return as strings.
    """
    start = 0
    for batch in objects.iter_batches(table, ["key", column], rows=4096):
        wanted = np.flatnonzero(rows[start : start + batch.num_rows])
        start += batch.num_rows
        if len(wanted):
            chosen = batch.take(pa.array(wanted))
            yield pa.record_batch([chosen["key"], chosen[column].cast(pa.binary())], CONTENT)
