"""New vectors out of the parent's: what an adapted model has to encode is mapped where it can be.

An adapted model is its parent with a map behind it (:mod:`mmindex.models.adapted`), so a vector of
the parent's is all that is needed: no image is opened and no model loaded. Each shard of the
parent gives one new shard, the unit of resume. What the parent could not encode the adapted model
cannot encode either, so failures are taken over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.encode.backlog import Backlog
from mmindex.encode.decoding import Failure
from mmindex.encode.shards import Shard
from mmindex.encode.units import UnitWriter
from mmindex.models.adapted import Affine
from mmindex.store.keys import DistinctKeys, binary_keys, places_of
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects

# Rows mapped at once: at 1,024 dimensions 32 MiB of float32.
_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class Part:
    """What one of the parent's shards gives.

    Attributes:
        ref: the shard.
        rows: int64 (n,), the rows to map, ascending.
        failed: missing items that the parent could not encode.
    """

    ref: ObjectRef
    rows: NDArray[np.int64]
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
    parts = []
    for shard in shards:
        places = places_of(shard.keys, live)
        rows = np.flatnonzero(places >= 0)
        rows = rows[missing[places[rows]]]
        missing[places[rows]] = False
        rest[live.rows[places[rows]]] = False
        parts.append(Part(shard.ref, rows.astype(np.int64), {}))
    for number, shard in enumerate(() if retry else shards):
        places = places_of(binary_keys(list(shard.failed)), live)
        for key, place in zip(shard.failed, places.tolist(), strict=True):
            if place >= 0 and missing[place]:
                missing[place] = rest[live.rows[place]] = False
                parts[number].failed[key] = shard.failed[key]
    used = tuple(part for part in parts if len(part.rows) or part.failed)
    return Mapping(used, replace(backlog, rows=rest))


def map_vectors(objects: Objects, mapping: Mapping, affine: Affine, writer: UnitWriter) -> None:
    """Write the new shards.

    Raises:
        DataError: a shard of the parent's is damaged.
        StorageError: a shard cannot be written.
    """
    for part in mapping.parts:
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
        writer.publish()
