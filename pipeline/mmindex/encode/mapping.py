"""Compute an adapted model's vectors from those of its parent, where the parent has them.

An adapted model is its parent followed by a map (:mod:`mmindex.models.adapted`), so the parent's
vector is sufficient: no image is opened and no model loaded. Each shard of the parent results in
one new shard, the unit of resume. What the parent could not encode, the adapted model cannot encode
either, so failures are copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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

# Rows per step: 32 MiB of float32 at 1,024 dimensions.
_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class MappedPart:
    """The usable content of one of the parent's shards.

    Attributes:
        ref: the shard.
        first: the first row of the table among the rows that it covers.
        rows: int64 (n,), the rows of the shard to map, ascending.
        failed: missing items that the parent could not encode.
    """

    ref: ObjectRef
    first: int
    rows: Int64
    failed: dict[str, Failure]

    @property
    def digest(self) -> str:
        """Identifies the part in its new shard, as :attr:`mmindex.encode.units.Unit.digest`."""
        digest = hashlib.sha256(self.ref.sha256.encode())
        digest.update(self.rows.astype("<i8").tobytes())
        digest.update("".join(sorted(self.failed)).encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Mapping:
    """Missing items that the parent's shards cover.

    Attributes:
        parts: usable shards, in order.
        rest: what is still to be encoded afterwards.
    """

    parts: tuple[MappedPart, ...]
    rest: Backlog

    @property
    def vectors(self) -> int:
        """The number of vectors that can be computed."""
        return sum(len(part.rows) for part in self.parts)


def plan_mapping(
    live: DistinctKeys, backlog: Backlog, shards: Sequence[Shard], *, retry: bool = False
) -> Mapping:
    """Look for missing items in the parent's shards.

    Args:
        live: the keys that need a vector.
        backlog: which of them have no vector yet.
        shards: the parent's shards; earlier ones take precedence.
        retry: encode items that the parent could not encode.
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
            parts.append(MappedPart(shard.ref, int(given.min()), rows, failed))
    return Mapping(tuple(parts), replace(backlog, rows=rest))


def _take(shard: Shard, live: DistinctKeys, missing: Mask) -> tuple[Int64, Int64]:
    """Return a shard's rows with missing keys, and these keys' positions; mark them as found."""
    places = places_of(shard.keys, live)
    rows = np.flatnonzero(places >= 0)
    rows = rows[missing[places[rows]]]
    missing[places[rows]] = False
    return rows.astype(np.int64), places[rows]


def _take_failures(
    shard: Shard, live: DistinctKeys, missing: Mask
) -> tuple[dict[str, Failure], Int64]:
    """Return a shard's recorded failures of missing items, and the positions of their keys."""
    places = places_of(binary_keys(list(shard.failed)), live)
    taken = (places >= 0) & missing[places]
    missing[places[taken]] = False
    pairs = zip(shard.failed.items(), taken.tolist(), strict=True)
    return {key: why for (key, why), wanted in pairs if wanted}, places[taken]


def map_part(
    objects: Objects, part: MappedPart, affine: Affine, side: Modality, info: EncoderInfo
) -> UnitResult:
    """Write the new shard of a part.

    Raises:
        DataError: the parent's shard is damaged.
        StorageError: the shard cannot be written.
    """
    writer = ShardWriter(objects, side, info, 0, part.digest)
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
    return UnitResult(0, writer.publish(), dict(writer.failed), writer.encoded)
