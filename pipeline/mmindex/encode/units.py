"""Collects vectors and publishes them as shards of a fixed size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import InternalError
from mmindex.core.modality import Modality
from mmindex.core.records import Reason
from mmindex.encode.decoding import Failure
from mmindex.encode.shards import shard_name, write_shard
from mmindex.models.encoder import Float32, good_rows
from mmindex.store.manifest import EncoderInfo, ObjectRef
from mmindex.store.objects import Objects


def unit_sizes(total: int, unit: int) -> Iterator[int]:
    """Split ``total`` into units; only the last is smaller. The same on every run."""
    full, rest = divmod(total, unit)
    for _ in range(full):
        yield unit
    if rest:
        yield rest


@dataclass(slots=True)
class UnitWriter:
    """Writes the vectors of one modality to shards.

    Attributes:
        objects: where shards go.
        side: the modality.
        info: the encoder.
        number: of the next shard.
        refs: the shards published so far.
        failed: every item that got no vector.
        encoded: how many items got one.
    """

    objects: Objects
    side: Modality
    info: EncoderInfo
    number: int
    refs: list[ObjectRef] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    encoded: int = 0
    _keys: list[str] = field(default_factory=list)
    _vectors: list[NDArray[np.float16]] = field(default_factory=list)
    _unit_failed: dict[str, Failure] = field(default_factory=dict)

    def add(self, keys: Sequence[str], vectors: Float32) -> None:
        """Take float32 (n, dim); rows without unit length fail with ``bad_vector``.

        Raises:
            InternalError: the shape is not the encoder's.
        """
        if vectors.shape != (len(keys), self.info.dim):
            raise InternalError(f"vectors {vectors.shape} for {len(keys)} keys of {self.info.dim}")
        good = good_rows(vectors)
        for place in np.flatnonzero(~good).tolist():
            self.fail(
                keys[place], Failure(Reason.BAD_VECTOR, "the model gave NaN, infinity or zero")
            )
        self._keys.extend(key for key, fine in zip(keys, good.tolist(), strict=True) if fine)
        self._vectors.append(vectors[good].astype(np.float16))

    def fail(self, key: str, failure: Failure) -> None:
        """Record that an item has no vector."""
        self._unit_failed[key] = failure

    @property
    def unfinished(self) -> bool:
        """Whether anything is pending."""
        return bool(self._keys or self._unit_failed)

    def publish(self) -> None:
        """Write the unit as one shard, even if everything in it failed, and start the next."""
        vectors = np.concatenate([np.empty((0, self.info.dim), np.float16), *self._vectors])
        name = shard_name(self.side, self.number)
        rows = (self._keys, vectors)
        self.refs.append(write_shard(self.objects, name, self.info, rows, self._unit_failed))
        self.number += 1
        self.encoded += len(self._keys)
        self.failed.update(self._unit_failed)
        self._keys, self._vectors, self._unit_failed = [], [], {}
