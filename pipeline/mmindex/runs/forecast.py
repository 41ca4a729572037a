"""What a build would do, as a record, and the parts of it that are foreseen from tables alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.config import IndexConfig
from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.encode.backlog import Backlog, plan_backlog
from mmindex.encode.shards import Shard, find_orphans, read_shard
from mmindex.index.decide import compare, recipe_of, why_anew
from mmindex.runs.report import newest_first
from mmindex.store.keys import live_keys, unique_keys
from mmindex.store.layout import Layout
from mmindex.store.manifest import EncoderInfo, Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot


class Unread(msgspec.Struct, frozen=True):
    """A source that would have to be fetched or drawn first."""

    source: str
    why: str


class Stop(msgspec.Struct, frozen=True):
    """What would stop the build, and the exit code that it would give."""

    exit_code: int
    message: str
    hint: str = ""


class EncodePlan(msgspec.Struct, frozen=True):
    """Vectors of one side: to be made, there already, known to be impossible."""

    encode: int
    reuse: int
    failed: int = 0


class IndexPlan(msgspec.Struct, frozen=True):
    """What would become of one side's index: ``kept``, ``extended`` or ``trained``."""

    action: str
    why: str
    added: int
    removed: int
    vectors: int


class Forecast(msgspec.Struct, frozen=True):
    """What a build would do.

    Attributes:
        store: the store's folder.
        version: what it shows now; 0: nothing yet.
        would: ``publish``, ``nothing`` (all is as it was), ``stop``, or ``fetch``: what is unread
            decides.
        exit_code: of the build, as far as can be foreseen.
        unread: sources that were left out.
        changes: of the sources that were read.
        not_read: files that are no images by their extension, by extension.
        not_read_remedy: which extras to install for them; empty: none would help.
        settings: those that differ from the published version's, as (before, after) by dotted name.
        model: the encoder's name; empty where its files would have to be fetched first.
        encode: by side.
        index: by side.
        stops: everything that would stop it, in order.
        needed_bytes, free_bytes: on the disk; needed is the least.
        seconds: by stage, from the rates of earlier runs; a stage without one is left out.
    """

    store: str
    version: int
    would: str = "stop"
    exit_code: int = 0
    unread: tuple[Unread, ...] = ()
    changes: dict[str, dict[str, int]] | None = None
    not_read: dict[str, int] = {}
    not_read_remedy: str = ""
    settings: dict[str, tuple[Any, Any]] = {}
    model: str = ""
    encode: dict[str, EncodePlan] = {}
    index: dict[str, IndexPlan] = {}
    stops: tuple[Stop, ...] = ()
    needed_bytes: int = 0
    free_bytes: int = 0
    seconds: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the corpus as it would be.

    Attributes:
        name: which.
        table: its table.
        backlog: what has a vector and what has not.
        keys: the keys that would be indexed: all but those known to fail.
    """

    name: Modality
    table: ObjectRef
    backlog: Backlog
    keys: pa.ChunkedArray[Any]

    @property
    def plan(self) -> EncodePlan:
        """The figures."""
        return EncodePlan(self.backlog.missing, self.backlog.reused, len(self.backlog.failed))


def foresee_sides(
    objects: Objects,
    real: Objects,
    tables: Sequence[ObjectRef],
    parent: Manifest | None,
    info: EncoderInfo | None,
) -> list[Side]:
    """What would be encoded.

    Args:
        objects: what the tables are read through.
        real: the store's own objects: shards that a killed run left count too.
        tables: images and captions.
        parent: the published version, or None.
        info: the encoder; None where it is not known, so that everything is to be encoded.
    """
    shards: dict[Modality, list[Shard]] = {side: [] for side in Modality}
    if info is not None and real.layout.is_store():
        orphans = find_orphans(real, info)
        for side, found in shards.items():
            listed = parent.named(f"embeddings/{side}/") if parent is not None else ()
            refs = [*listed, *orphans[side]]
            found += [shard for ref in refs if (shard := _sound(real, ref, info)) is not None]
    return [
        _side(objects, side, table, shards[side])
        for side, table in zip(Modality, tables, strict=True)
    ]


def _side(objects: Objects, side: Modality, table: ObjectRef, shards: Sequence[Shard]) -> Side:
    live = live_keys(objects, table)
    backlog = plan_backlog(live, shards)
    keys = unique_keys(objects, table, live)
    failed = pa.array(list(backlog.failed), pa.string())
    return Side(side, table, backlog, keys.filter(pc.invert(pc.is_in(keys, value_set=failed))))


def _sound(objects: Objects, ref: ObjectRef, info: EncoderInfo) -> Shard | None:
    try:
        return read_shard(objects, ref, info)
    except DataError:  # a build encodes it again
        return None


def foresee_index(
    indexed: Snapshot | None, side: Side, fingerprint: str, config: IndexConfig
) -> IndexPlan:
    """What would become of one side's index; the rules are those of :mod:`mmindex.index.decide`.

    Args:
        indexed: the version with the last index of this side; None: there is none.
        side: the keys to index.
        fingerprint: the encoder's; empty where it is not known.
        config: the section index.

    Raises:
        UsageError: no index of the kind asked for fits the memory.
    """
    n = len(side.keys)
    if indexed is None:
        return IndexPlan("trained", "first build", n, 0, n)
    info = indexed.index(side.name)
    if not fingerprint:
        return IndexPlan("trained", "another model", n, info.n, n)
    change = compare(indexed.keys(side.name), side.keys)
    why = why_anew(info, change, recipe_of(fingerprint, config), config)
    action = "trained" if why else "extended" if change.size else "kept"
    why = why or ("" if change.size else "nothing changed")
    return IndexPlan(action, why, len(change.fresh), len(change.gone), n)


def foresee_seconds(
    layout: Layout, seen: int, encode: Mapping[str, EncodePlan], index: Mapping[str, IndexPlan]
) -> dict[str, float]:
    """Seconds by stage, at the rates of the newest run that has each; others are left out."""
    reports = list(newest_first(layout)) if layout.runs_dir.is_dir() else []
    rates = {
        name: value
        for report in reversed(reports)
        for stage in report.rates.values()
        for name, value in stage.items()
        if value
    }
    built = sum(plan.vectors for plan in index.values() if plan.action == "trained")
    built += sum(plan.added for plan in index.values() if plan.action == "extended")
    work = {
        "crawl": {"items_per_second": seen},
        "encode": {
            f"{side}s_per_second": plan.encode for side, plan in encode.items() if plan.encode
        },
        "index": {"vectors_per_second": built} if built else {},
    }
    return {
        stage: round(sum(count / rates[name] for name, count in parts.items()), 3)
        for stage, parts in work.items()
        if all(name in rates for name in parts)
    }
