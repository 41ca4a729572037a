"""What is to be encoded, and what is there already: decided before anything is done.

The stage executes a plan; a dry run shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.encode.backlog import Backlog, plan_backlog
from mmindex.encode.decoding import Failure
from mmindex.encode.mapping import Mapping, plan_mapping
from mmindex.encode.shards import Shard, find_orphans, number_of, read_shard, shard_name
from mmindex.store.keys import DistinctKeys, live_keys, unique_keys
from mmindex.store.manifest import EncoderInfo, Manifest, ObjectRef
from mmindex.store.objects import Objects


@dataclass(frozen=True, slots=True)
class EncodePlan:
    """What one side of the corpus needs.

    Attributes:
        side: which.
        table: its table.
        live: the keys that need a vector.
        backlog: what has one and what has not; its shards have the names they will go by.
        adopted: how many of those shards a run left that was killed.
        next_number: of the next shard.
        mapping: of an adapted model: what is computed from its parent's vectors; None: all that
            is missing is encoded.
    """

    side: Modality
    table: ObjectRef
    live: DistinctKeys
    backlog: Backlog
    adopted: int
    next_number: int
    mapping: Mapping | None = None

    @property
    def mapped(self) -> int:
        """How many vectors are computed from the parent's."""
        return self.mapping.vectors if self.mapping is not None else 0

    @property
    def failed(self) -> dict[str, Failure]:
        """The items that are known to fail, with the model or with its parent."""
        parts = self.mapping.parts if self.mapping is not None else ()
        return {
            key: why for part in parts for key, why in part.failed.items()
        } | self.backlog.failed

    def to_index(self, objects: Objects) -> pa.ChunkedArray[Any]:
        """The keys that will be indexed, as far as can be foreseen: all but the known failures."""
        keys = unique_keys(objects, self.table, self.live)
        failed = pa.array(list(self.failed), pa.string())
        return keys.filter(pc.invert(pc.is_in(keys, value_set=failed)))


@dataclass(slots=True)
class ShardReader:
    """Reads the shards that one encoder made.

    Attributes:
        objects: where they lie.
        info: the encoder.
    """

    objects: Objects
    info: EncoderInfo
    _orphans: dict[Modality, list[ObjectRef]] | None = None
    _known: dict[str, Shard] = field(default_factory=dict)

    def of_parent(self) -> ShardReader | None:
        """Reads the shards of the model that this one was adapted from; None for other models."""
        if not self.info.parent:
            return None
        return ShardReader(
            self.objects, msgspec.structs.replace(self.info, fingerprint=self.info.parent)
        )

    def read(self, refs: Sequence[ObjectRef]) -> list[Shard]:
        """These shards, without those of other encoders and damaged ones, which are made again."""
        return [shard for ref in refs if (shard := self._sound(ref)) is not None]

    def orphans(self, side: Modality) -> list[ObjectRef]:
        """Shards that no version lists."""
        if self._orphans is None:
            there = self.objects.layout.is_store()
            self._orphans = find_orphans(self.objects, self.info) if there else {}
        return self._orphans.get(side, [])

    def forget(self) -> None:
        """Let go of the shards read so far."""
        self._known.clear()

    def _sound(self, ref: ObjectRef) -> Shard | None:
        if ref.sha256 in self._known:
            return replace(self._known[ref.sha256], ref=ref)
        try:
            shard = read_shard(self.objects, ref, self.info)
        except DataError as error:
            get_logger("encode").warning("encoding a damaged shard again", why=error.message)
            return None
        if shard is not None:
            self._known[ref.sha256] = shard
        return shard


def plan_encode(
    tables: tuple[Objects, ObjectRef],
    side: Modality,
    draft: Manifest,
    reader: ShardReader | None,
    *,
    retry: bool = False,
) -> EncodePlan:
    """What the published version lacks, less what a killed run's shards hold.

    Args:
        tables: where the side's table is, and the table.
        side: which.
        draft: the version in the making; its shards are used again where they fit.
        reader: reads shards; None: the encoder is not known, and everything is to be encoded.
        retry: encode anew what is known to fail.
    """
    objects, table = tables
    live = live_keys(objects, table)
    if reader is None:
        return EncodePlan(side, table, live, plan_backlog(live, ()), 0, 0)
    listed = draft.named(f"embeddings/{side}/")
    shards, adopted = reader.read(listed), 0
    backlog = plan_backlog(live, shards, retry=retry)
    if backlog.missing:
        known = {ref.sha256 for ref in listed}
        orphans = [ref for ref in reader.orphans(side) if ref.sha256 not in known]
        backlog = plan_backlog(live, [*shards, *reader.read(orphans)], retry=retry)
        before = sum(ref.sha256 in known for ref in backlog.kept)
        adopted = len(backlog.kept) - before
        backlog = replace(backlog, kept=_renamed(backlog.kept, side, before))
    parent = reader.of_parent() if backlog.missing else None
    mapping = None
    if parent is not None:
        mapping = plan_mapping(live, backlog, parent.read(listed), retry=retry)
    return EncodePlan(side, table, live, backlog, adopted, _next_number(backlog.kept), mapping)


def _renamed(refs: tuple[ObjectRef, ...], side: Modality, listed: int) -> tuple[ObjectRef, ...]:
    """Name the shards after the first ``listed`` as if this run had made them."""
    first = _next_number(refs[:listed])
    adopted = (
        msgspec.structs.replace(ref, name=shard_name(side, first + place))
        for place, ref in enumerate(refs[listed:])
    )
    return (*refs[:listed], *adopted)


def _next_number(refs: tuple[ObjectRef, ...]) -> int:
    """Shard numbers only grow: a dropped shard's name is not given to another one."""
    return max((number_of(ref) for ref in refs), default=-1) + 1
