"""The plan of an encoding: existing vectors and those to encode, determined in advance.

The stage executes a plan; a dry run shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.core.threads import in_threads
from mmindex.encode.backlog import Backlog, Mask, plan_backlog
from mmindex.encode.decoding import Failure
from mmindex.encode.given import Given, GivenFiles, plan_given, refuse_renamed
from mmindex.encode.mapping import MappedPart, Mapping, plan_mapping
from mmindex.encode.shards import Shard, find_orphans, number_of, numbered, read_shard
from mmindex.encode.units import UnitRows, cut
from mmindex.store.forgotten import FORGOTTEN
from mmindex.store.keys import DistinctKeys, binary_keys, live_keys, places_of, unique_keys
from mmindex.store.manifest import EncoderInfo, Manifest, ObjectRef
from mmindex.store.objects import Objects


@dataclass(frozen=True, slots=True)
class EncodePlan:
    """What one side of the corpus needs.

    Attributes:
        side: the side.
        table: its table.
        live: the keys that need a vector.
        backlog: existing and missing vectors.
        wanted: bool (rows of the table,): what the published version and files of vectors lack;
            units are cut from it.
        listed: shards of the published version that are kept.
        adopted: shards of a killed run or a part, with the first row of each.
        mapping: for an adapted model, the items that are mapped from its parent's vectors; or None.
        given: the items whose vectors are taken from files; None without such files.
    """

    side: Modality
    table: ObjectRef
    live: DistinctKeys
    backlog: Backlog
    wanted: Mask
    listed: tuple[ObjectRef, ...] = ()
    adopted: tuple[tuple[int, ObjectRef], ...] = ()
    mapping: Mapping | None = None
    given: Given | None = None

    @property
    def rest(self) -> Backlog:
        """The items for the model: missing items that are neither mapped nor taken from files."""
        if self.given is not None:
            return self.given.rest
        return self.backlog if self.mapping is None else self.mapping.rest

    @property
    def mapped(self) -> int:
        """The number of vectors to compute from those of the parent."""
        return 0 if self.mapping is None else self.mapping.vectors

    @property
    def mapped_parts(self) -> tuple[MappedPart, ...]:
        """The parts of the parent's shards to map."""
        return () if self.mapping is None else self.mapping.parts

    @property
    def failed(self) -> dict[str, Failure]:
        """The items that are known to fail, with the model or with its parent."""
        mapped = {k: why for part in self.mapped_parts for k, why in part.failed.items()}
        return mapped | self.backlog.failed

    def units(self, most: int) -> list[UnitRows]:
        """Return the items to encode, cut into units of at most ``most`` rows."""
        return cut(self.wanted, self.rest.rows, most)

    def shards(self, made: Iterable[tuple[int, ObjectRef]]) -> tuple[ObjectRef, ...]:
        """Return all shards, numbered in the order of the table's rows, regardless of their origin.

        Args:
            made: new shards with the first row of each.
        """
        first = max((number_of(ref) for ref in self.listed), default=-1) + 1
        new = sorted([*self.adopted, *made], key=lambda entry: (entry[0], entry[1].sha256))
        return (*self.listed, *numbered(self.side, (ref for _, ref in new), first))

    def to_index(self, objects: Objects) -> pa.ChunkedArray[Any]:
        """Return the keys that are expected to be indexed: all except the known failures."""
        keys = unique_keys(objects, self.table, self.live)
        failed = pa.array(list(self.failed), pa.string())
        return keys.filter(pc.invert(pc.is_in(keys, value_set=failed)))


@dataclass(slots=True)
class ShardReader:
    """Reads the shards that one encoder made.

    Attributes:
        objects: the store's objects.
        info: the encoder.
        adopts: whether it finds shards that no version lists.
    """

    objects: Objects
    info: EncoderInfo
    adopts: bool = True
    _orphans: dict[Modality, list[ObjectRef]] | None = None
    _known: dict[str, Shard] = field(default_factory=dict)

    def of_parent(self) -> ShardReader | None:
        """Return a reader of the shards of an adapted model's parent; None for other models."""
        if not self.info.parent:
            return None
        parent = msgspec.structs.replace(self.info, fingerprint=self.info.parent)
        return ShardReader(self.objects, parent)

    def read(self, refs: Sequence[ObjectRef]) -> list[Shard]:
        """Read shards, without those of other encoders and damaged ones, which are made again."""
        return [shard for shard in in_threads(self._sound, refs) if shard is not None]

    def orphans(self, side: Modality) -> list[ObjectRef]:
        """Return the shards that no version lists."""
        if self._orphans is None:
            there = self.adopts and self.objects.layout.is_store()
            self._orphans = find_orphans(self.objects, self.info) if there else {}
        return self._orphans.get(side, [])

    def forget(self) -> None:
        """Release the shards read so far."""
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
    files: GivenFiles | None = None,
    *,
    retry: bool = False,
) -> EncodePlan:
    """Plan the items that neither the published version nor the shards of a killed run have.

    Args:
        tables: the objects and the side's table.
        side: the side.
        draft: the next version; its shards are reused where they match.
        reader: reads shards; None if the encoder is unknown, so that everything must be encoded.
        files: files of vectors.
        retry: encode items again that are known to fail.

    Raises:
        DataError: a file of vectors is damaged.
        ModelMismatchError: the store has its vectors as those of another model.
    """
    objects, table = tables
    live = live_keys(objects, table)
    listed = draft.named(f"embeddings/{side}/") if reader is not None else ()
    shards = reader.read(listed) if reader is not None else []
    backlog = plan_backlog(live, shards, retry=retry)
    wanted = backlog.rows
    if reader is None or not backlog.missing:
        return EncodePlan(side, table, live, backlog, wanted, backlog.kept)
    orphans = _adoptable(reader.read(reader.orphans(side)), live, draft)
    backlog = plan_backlog(live, [*shards, *(shard for _, shard in orphans)], retry=retry)
    begins = {shard.ref.sha256: row for row, shard in orphans}
    mapping, parent = None, reader.of_parent()
    if parent is not None and backlog.missing:
        mapping = plan_mapping(live, backlog, parent.read(listed), retry=retry)
    given, own = None, files.side(side) if files is not None else ()
    if own and wanted.any():
        given = plan_given(own, live, mapping.rest if mapping is not None else backlog)
        _refuse_renamed(objects, listed, draft.encoder, reader.info, given, live)
        wanted = wanted & ~given.covered
    return EncodePlan(
        side,
        table,
        live,
        backlog,
        wanted,
        listed=tuple(ref for ref in backlog.kept if ref.sha256 not in begins),
        adopted=tuple((begins[ref.sha256], ref) for ref in backlog.kept if ref.sha256 in begins),
        mapping=mapping,
        given=given,
    )


def _refuse_renamed(
    objects: Objects,
    listed: Sequence[ObjectRef],
    old: EncoderInfo | None,
    new: EncoderInfo,
    given: Given,
    live: DistinctKeys,
) -> None:
    """Refuse vectors that the store has as those of another model, see :mod:`given`."""
    if old is not None and old.fingerprint != new.fingerprint:
        shards = ShardReader(objects, old).read(listed)
        refuse_renamed(given, live, [shard.keys for shard in shards], old, new)


def _adoptable(
    shards: Sequence[Shard], live: DistinctKeys, draft: Manifest
) -> list[tuple[int, Shard]]:
    """Return shards that no version lists, in the order of each one's first row in the table.

    If images were forgotten, a shard with an unused row is not adopted, because its author may not
    have known that they were forgotten.
    """
    listed = {ref.sha256 for ref in draft.objects}
    strict, found = draft.find(FORGOTTEN) is not None, []
    for shard in shards:
        keys = np.concatenate([shard.keys, binary_keys(list(shard.failed))])
        places = places_of(keys, live)
        here = places[places >= 0]
        if len(here) and shard.ref.sha256 not in listed and not (strict and (places < 0).any()):
            found.append((int(live.rows[here].min()), shard))
    return sorted(found, key=lambda entry: (entry[0], entry[1].ref.sha256))
