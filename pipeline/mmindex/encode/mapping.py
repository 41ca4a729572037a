"""New vectors out of the parent's: what an adapted model has to encode is mapped where it can be.

An adapted model is its parent with a map behind it (:mod:`mmindex.models.adapted`), so a vector of
the parent's is all that is needed: no image is opened and no model loaded. Each shard of the
parent gives one new shard, the unit of resume. What the parent could not encode the adapted model
cannot encode either, so failures are taken over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.encode.backlog import Backlog, Mask
from mmindex.encode.decoding import Failure
from mmindex.encode.shards import Shard
from mmindex.encode.units import ShardWriter, UnitResult
from mmindex.models.adapted import Affine
from mmindex.store.keys import DistinctKeys, binary_keys, places_of
from mmindex.store.manifest import EncoderInfo, ObjectRef
from mmindex.store.objects import Objects

Int64 = NDArray[np.int64]

# Rows mapped at once: at 1,024 dimensions 32 MiB of float32.
_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class Part:
    """What one of the parent's shards gives.

    Attributes:
        ref: the shard.
        first: the first row of the table that is among those it gives.
        rows: int64 (n,), the rows of the shard to map, ascending.
        failed: missing items that the parent could not encode.
    """

    ref: ObjectRef
    first: int
    rows: Int64
    failed: dict[str, Failure]


@dataclass(frozen=True, slots=True)
class Mapping:
    """What the parent's shards give of what is missing.

    Attributes:
        parts: shards that give something, in order.
        rest: what is still to be encoded afterwards.
    """

    parts: tuple[Part, ...]
    rest: Backlog

    @property
    def vectors(self) -> int:
        """How many vectors can be computed."""
        return sum(len(part.rows) for part in self.parts)


def plan_mapping(
    live: DistinctKeys, backlog: Backlog, shards: Sequence[Shard], *, retry: bool = False
) -> Mapping:
    """Look for missing items in the parent's shards.

    Args:
        live: the keys that need a vector.
        backlog: which of them have none yet.
        shards: the parent's; earlier ones win.
        retry: encode anew what the parent could not encode.
    """
    missing = backlog.rows[live.rows]
    rest = backlog.rows.copy()
    found = [(shard, *_take(shard, live, missing)) for shard in shards]
    parts = []
    for shard, rows, taken in found:
        failed, lost = ({}, taken[:0]) if retry else _take_failures(shard, live, missing)
        given = live.rows[np.concatenate([taken, lost])]
        rest[given] = False
        if len(given):
            parts.append(Part(shard.ref, int(given.min()), rows, failed))
    return Mapping(tuple(parts), replace(backlog, rows=rest))


def _take(shard: Shard, live: DistinctKeys, missing: Mask) -> tuple[Int64, Int64]:
    """Rows of a shard whose keys are missing, and the places of these keys; marks them as found."""
    places = places_of(shard.keys, live)
    rows = np.flatnonzero(places >= 0)
    rows = rows[missing[places[rows]]]
    missing[places[rows]] = False
    return rows.astype(np.int64), places[rows]


def _take_failures(
    shard: Shard, live: DistinctKeys, missing: Mask
) -> tuple[dict[str, Failure], Int64]:
    """The failures of missing items that a shard remembers, and the places of their keys."""
    places = places_of(binary_keys(list(shard.failed)), live)
    taken = (places >= 0) & missing[places]
    missing[places[taken]] = False
    pairs = zip(shard.failed.items(), taken.tolist(), strict=True)
    return {key: why for (key, why), wanted in pairs if wanted}, places[taken]


def map_vectors(
    objects: Objects, mapping: Mapping, affine: Affine, side: Modality, info: EncoderInfo
) -> Iterator[tuple[int, UnitResult]]:
    """Write the new shards; each with the first row of the table in it.

    Raises:
        DataError: a shard of the parent is damaged.
        StorageError: a shard cannot be written.
    """
    for part in mapping.parts:
        writer = ShardWriter(objects, side, info, 0)
        for key, failure in sorted(part.failed.items()):
            writer.fail(key, failure)
        first = 0
        for batch in objects.iter_batches(part.ref, ["key", "vector"], rows=_ROWS):
            low, high = np.searchsorted(part.rows, (first, first + batch.num_rows))
            taken = batch.take(pa.array(part.rows[low:high] - first))
            first += batch.num_rows
            vectors = taken["vector"].flatten().to_numpy().reshape(len(taken), -1)
            if len(taken):
                writer.add(taken["key"].to_pylist(), affine(vectors))
        yield part.first, UnitResult(0, writer.publish(), dict(writer.failed), writer.encoded)
