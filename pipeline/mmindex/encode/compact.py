"""Merge the small and half-empty embedding shards that nightly changes leave.

A nightly run adds a small shard, and removed items remain in their shards as unused rows. A shard
of which less than half of the rows are live is therefore rewritten without the others. When more
than ``MOST_SMALL`` shards are less than half full, they are merged into full ones.

The rule depends only on the shards and the live keys, rows keep their order, and merged shards no
longer match the rule. So an unchanged corpus is not rewritten, and the run after a killed one
writes the same bytes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.encode.decoding import Failure
from mmindex.encode.shards import Shard, number_of, numbered
from mmindex.encode.units import ShardWriter
from mmindex.store.keys import DistinctKeys, places_of
from mmindex.store.manifest import EncoderInfo, ObjectRef
from mmindex.store.objects import Objects

# A nightly run with few changes adds one shard; this number only costs a few open files.
MOST_SMALL = 8
_READ_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class Compaction:
    """The merging of one side's shards.

    Attributes:
        objects: the store's objects.
        side: images or texts.
        info: the encoder.
        unit: rows of a full shard.
    """

    objects: Objects
    side: Modality
    info: EncoderInfo
    unit: int

    def run(
        self, live: DistinctKeys, shards: Sequence[Shard], failed: Mapping[str, Failure]
    ) -> tuple[ObjectRef, ...]:
        """Merge the shards that the rule selects.

        Args:
            live: the live keys.
            shards: all shards that the version needs, in order; earlier ones take precedence.
            failed: live items that have no vector.

        Returns:
            The shards of the version, in order: unchanged ones, then new ones.

        Raises:
            DataError: a shard is damaged.
            StorageError: a shard cannot be written.
        """
        rows = _used_rows(live, shards)
        chosen = to_rewrite([len(s.keys) for s in shards], [len(r) for r in rows], self.unit)
        if not chosen:
            return tuple(shard.ref for shard in shards)
        first = 1 + max(number_of(shard.ref) for shard in shards)
        refs = numbered(self.side, self._merged(shards, rows, chosen, failed), first)
        get_logger("encode").info(
            "shards merged", side=self.side, before=len(chosen), after=len(refs)
        )
        left = (shard.ref for number, shard in enumerate(shards) if number not in set(chosen))
        return (*left, *refs)

    def _merged(
        self,
        shards: Sequence[Shard],
        rows: Sequence[NDArray[np.int64]],
        chosen: Sequence[int],
        failed: Mapping[str, Failure],
    ) -> Iterator[ObjectRef]:
        """Write the used rows of the chosen shards into full ones, in order."""
        writer = self._writer()
        for number in chosen:
            shard = shards[number]
            for key in sorted(shard.failed.keys() & failed.keys()):
                writer.fail(key, shard.failed[key])
            for keys, vectors in self._parts(shard, rows[number]):
                for part in _cuts(len(keys), self.unit - writer.encoded, self.unit):
                    writer.add(keys[part], vectors[part].astype(np.float32))
                    if writer.encoded >= self.unit:
                        yield from _published(writer)
                        writer = self._writer()
        yield from _published(writer)

    def _writer(self) -> ShardWriter:
        return ShardWriter(self.objects, self.side, self.info, 0)

    def _parts(
        self, shard: Shard, rows: NDArray[np.int64]
    ) -> Iterator[tuple[list[str], NDArray[np.float16]]]:
        """Yield the keys and vectors of some rows of a shard (ascending), in parts."""
        first = 0
        for batch in self.objects.iter_batches(shard.ref, ["key", "vector"], rows=_READ_ROWS):
            low, high = np.searchsorted(rows, (first, first + batch.num_rows))
            taken = batch.take(pa.array(rows[low:high] - first))
            first += batch.num_rows
            vectors = taken["vector"].flatten().to_numpy().reshape(-1, self.info.dim)
            yield taken["key"].to_pylist(), vectors


def to_rewrite(rows: Sequence[int], live: Sequence[int], unit: int) -> list[int]:
    """Return the numbers of the shards to merge, ascending.

    Args:
        rows: number of rows of each shard.
        live: number of live rows of each shard.
        unit: rows of a full shard.
    """
    dying = [n for n, (every, used) in enumerate(zip(rows, live, strict=True)) if 2 * used < every]
    small = [n for n, used in enumerate(live) if 2 * used < unit]
    # Merging the mostly unused ones leaves at most one more small shard.
    left = len(set(small) - set(dying)) + bool(dying)
    return sorted({*small, *dying}) if left > MOST_SMALL else dying


def _published(writer: ShardWriter) -> Iterator[ObjectRef]:
    """Yield the shard, if there is one."""
    if (ref := writer.publish()) is not None:
        yield ref


def _used_rows(live: DistinctKeys, shards: Sequence[Shard]) -> list[NDArray[np.int64]]:
    """Return the used rows of each shard: live, and not in an earlier shard."""
    covered = np.zeros(len(live.unique), dtype=np.bool_)
    used = []
    for shard in shards:
        places = places_of(shard.keys, live)
        rows = np.flatnonzero(places >= 0)
        rows = rows[~covered[places[rows]]]
        covered[places[rows]] = True
        used.append(rows.astype(np.int64))
    return used


def _cuts(rows: int, room: int, unit: int) -> Iterator[slice]:
    """Cut rows so that the first part fills ``room`` and each further part a unit."""
    start = 0
    while start < rows:
        stop = min(start + room, rows)
        yield slice(start, stop)
        start, room = stop, unit
