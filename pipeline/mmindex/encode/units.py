"""Units of encoding: the rows that become one shard, and their results.

A unit has everything that a worker needs in addition to the model. Its shard depends on nothing
else: not on when or where it was encoded, nor on the results of other units.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import InternalError
from mmindex.core.modality import Modality
from mmindex.core.records import Reason
from mmindex.encode.backlog import CONTENT, Mask, read_batches
from mmindex.encode.decoding import Failure
from mmindex.encode.shards import lasting, shard_name, write_shard
from mmindex.models.encoder import Float32, good_rows
from mmindex.store.manifest import EncoderInfo, ObjectRef
from mmindex.store.objects import Objects

Rows = NDArray[np.int64]
# The column that a unit is encoded from, by side.
_COLUMNS = {Modality.IMAGE: "uri", Modality.TEXT: "text"}


def sizes(total: int, most: int) -> Iterator[int]:
    """Split ``total`` into parts of ``most``; only the last is smaller. The same on every run."""
    full, rest = divmod(total, most)
    for _ in range(full):
        yield most
    if rest:
        yield rest


@dataclass(frozen=True, slots=True)
class UnitRows:
    """The rows of a table in a unit.

    Attributes:
        number: its position among the units of its side.
        rows: int64 (n,): the rows, ascending; at least one.
    """

    number: int
    rows: Rows

    @property
    def first(self) -> int:
        """Its first row."""
        return int(self.rows[0])


def cut(wanted: Mask, missing: Mask, most: int) -> list[UnitRows]:
    """Cut rows into units.

    Args:
        wanted: bool (rows of the table,): what the published version lacks. Only this determines
            where units begin and end, so that processes started at different times cut equally.
        missing: those of them that have not been encoded since; the others are left out.
        most: rows of a full unit.
    """
    rows = np.flatnonzero(wanted)
    parts = (rows[start : start + most] for start in range(0, len(rows), most))
    left = (part[missing[part]] for part in parts)
    return [UnitRows(number, part) for number, part in enumerate(left) if len(part)]


@dataclass(frozen=True, slots=True)
class Unit:
    """The rows that become one shard.

    Attributes:
        side: images or texts.
        number: its position among the units of its side.
        size: number of rows.
        data: the rows as an Arrow batch, which takes little time to make and to send.
    """

    side: Modality
    number: int
    size: int
    data: bytes

    @property
    def rows(self) -> list[tuple[str, bytes]]:
        """The key in hex, and the UTF-8 bytes of the image's uri or of the text, of each row."""
        batch = pa.ipc.read_record_batch(pa.py_buffer(self.data), CONTENT)
        return list(zip(batch["key"].to_pylist(), batch["content"].to_pylist(), strict=True))

    @property
    def digest(self) -> str:
        """The sha256 of the unit's keys, in hex; identifies the unit in its shard."""
        return hashlib.sha256("".join(key for key, _ in self.rows).encode()).hexdigest()


def read_units(
    objects: Objects, table: ObjectRef, side: Modality, units: Sequence[UnitRows]
) -> Iterator[Unit]:
    """Stream the units of a table, in order."""
    wanted = np.zeros(table.rows, dtype=np.bool_)
    for unit in units:
        wanted[unit.rows] = True
    stream = read_batches(objects, table, _COLUMNS[side], wanted)
    ahead = CONTENT.empty_table()
    for unit in units:
        size = len(unit.rows)
        while ahead.num_rows < size and (batch := next(stream, None)) is not None:
            ahead = pa.concat_tables([ahead, pa.Table.from_batches([batch])])
        if ahead.num_rows < size:
            raise InternalError(f"{table.name}: expected {size} rows, got {ahead.num_rows}")
        [rows] = ahead.slice(0, size).combine_chunks().to_batches()
        ahead = ahead.slice(size)
        yield Unit(side, unit.number, size, rows.serialize().to_pybytes())


@dataclass(frozen=True, slots=True)
class UnitResult:
    """The result of a unit.

    Attributes:
        number: the unit's number.
        shard: its shard; None if it has neither a vector nor a failure to record.
        failed: every item without a vector.
        encoded: number of items with a vector.
        cut_texts: number of texts that were longer than the model's context.
        seconds: wall time by part, see :class:`mmindex.encode.stage.EncodeReport`.
    """

    number: int
    shard: ObjectRef | None
    failed: Mapping[str, Failure]
    encoded: int
    cut_texts: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class ShardWriter:
    """Collects the vectors and failures of one shard.

    Attributes:
        objects: the store's objects.
        side: the modality.
        info: the encoder.
        number: number of the shard; part of its name but not of its content.
        unit: the digest of the unit that the shard is made from; empty for none.
        failed: every item without a vector.
    """

    objects: Objects
    side: Modality
    info: EncoderInfo
    number: int
    unit: str = ""
    failed: dict[str, Failure] = field(default_factory=dict)
    _keys: list[str] = field(default_factory=list)
    _vectors: list[NDArray[np.float16]] = field(default_factory=list)

    def add(self, keys: Sequence[str], vectors: Float32) -> None:
        """Add float32 (n, dim); rows without unit length fail with ``bad_vector``.

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
        self.failed[key] = failure

    @property
    def encoded(self) -> int:
        """The number of vectors."""
        return len(self._keys)

    def publish(self) -> ObjectRef | None:
        """Write the shard; None if there is nothing to write."""
        if not self._keys and not lasting(self.failed):
            return None
        vectors = np.concatenate([np.empty((0, self.info.dim), np.float16), *self._vectors])
        name = shard_name(self.side, self.number)
        rows = (self._keys, vectors)
        return write_shard(self.objects, name, self.info, rows, self.failed, self.unit)
