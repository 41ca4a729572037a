"""Extend the index of one side: add and remove vectors without training.

Ids only increase. Unchanged segments are reused by reference, additions become a new segment, and
removed vectors keep their rows, which are no longer read. The rules for training instead are in
:mod:`mmindex.index.decide`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.config import IndexConfig
from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.core.progress import StageTimer
from mmindex.index import gpu as gpus
from mmindex.index.build import IndexReport
from mmindex.index.decide import Change, UpdatePlan, compare, recipe_of, segments_kept, why_anew
from mmindex.index.exact import block_rows, thread_count
from mmindex.index.faissio import (
    add_vectors,
    ivf_part,
    read_index,
    remove_vectors,
    why_not_changeable,
    write_index,
)
from mmindex.index.gather import IDS_SCHEMA, id_batches, locate, vector_blocks
from mmindex.index.plan import IndexPlan
from mmindex.index.tune import Tuning, hold, tune, yardstick
from mmindex.store.manifest import IndexInfo, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.store.vectors import Vectors, write_removed, write_segment


@dataclass(frozen=True, slots=True)
class Before:
    """One side of the last indexed version."""

    version: Snapshot
    side: Modality

    @property
    def info(self) -> IndexInfo:
        """How the index is searched."""
        return self.version.index(self.side)

    def named(self, kind: str) -> tuple[ObjectRef, ...]:
        """The objects of one kind, such as ``vectors``."""
        return self.version.manifest.named(f"{kind}/{self.side}")


@dataclass(frozen=True, slots=True)
class Order:
    """The arguments for extending an index.

    Attributes:
        change: the change since the last version.
        shards: embedding shards with the new vectors.
        config: the section index.
        queries: float32 (q, dim) for tuning, see :func:`mmindex.index.build.build_index`.
        purge: overwrite removed rows on disk with zeros.
    """

    change: Change
    shards: Sequence[ObjectRef]
    config: IndexConfig
    queries: NDArray[np.float32] | None
    purge: bool = False


@dataclass(frozen=True, slots=True)
class Retrain:
    """Why there is no index to extend."""

    why: str


def plan_index(
    before: Before | Retrain,
    keys: pa.ChunkedArray[Any],
    fingerprint: str,
    config: IndexConfig,
    *,
    purge: bool = False,
) -> UpdatePlan:
    """Plan the index of one side without writing anything.

    Args:
        before: the last index, or why it cannot be used.
        keys: string (n,), the keys to index, without duplicates.
        fingerprint: the fingerprint of the encoder; empty if not known yet, which counts as
            changed.
        config: the section index.
        purge: whether objects must not contain removed vectors.

    Raises:
        UsageError: no index of the requested kind fits in the memory limit.
    """
    n = len(keys)
    if isinstance(before, Retrain):
        return UpdatePlan("trained", before.why, n, 0, n)
    if not fingerprint:
        return UpdatePlan("trained", "another model", n, before.info.n, n)
    change = compare(before.version.keys(before.side), keys)
    added, removed = len(change.fresh), len(change.gone)
    if why := why_anew(before.info, change, recipe_of(fingerprint, config), config):
        return UpdatePlan("trained", why, added, removed, n)
    if change.size or purge:
        return UpdatePlan("extended", "", added, removed, n, change)
    return UpdatePlan("kept", "nothing changed", 0, 0, n, change)


def extend_index(before: Before, order: Order) -> IndexReport | Retrain:
    """Create the next version of the index of one side according to :func:`plan_index`.

    Args:
        before: the last version, with verified objects.
        order: the arguments.

    Returns:
        the report, or why the index must be trained: faiss cannot change this kind of index, or the
        recall is below a target that training reached.

    Raises:
        InternalError: a key has no vector.
        DataError: an object is damaged, or a vector is not of unit length.
    """
    info, change, objects = before.info, order.change, before.version.objects
    timer = StageTimer()
    ref = before.version.manifest.find(f"index/{info.modality}")
    index = None
    if not info.exact:
        if ref is None:
            raise DataError(f"index/{info.modality}: missing", "run `mmindex check`")
        with timer.measure("read"):
            index = read_index(objects, ref, info)
        if (change.size or order.purge) and (why := why_not_changeable(index)):
            return Retrain(why)
    with timer.measure("gather"):
        refs = _write_rows(before, order)
        vectors = Vectors(objects, refs, info.modality, info.dim)
    info = msgspec.structs.replace(
        info, n=vectors.live, rows=vectors.n, changed=info.changed + change.size
    )
    if index is None or ref is None:
        return IndexReport(info, refs, timer.seconds)
    if change.size or order.purge:
        with timer.measure("update"):
            _update(index, vectors, before.info, order)
    tuning = _tune(index, vectors, info, order, timer)
    target = order.config.recall_target
    if not tuning.reached and (info.trained_recall or 0.0) >= target:
        return Retrain(f"recall fell to {tuning.recall:.3f}; training had reached {target}")
    if change.size or order.purge:
        with timer.measure("write"):
            ref = write_index(objects, info.modality, index)
    info = msgspec.structs.replace(
        info,
        nprobe=tuning.nprobe,
        k_factor=tuning.k_factor,
        measured_recall=tuning.recall,
        curve=tuning.curve,
    )
    return IndexReport(info, (*refs, ref), timer.seconds)


def _write_rows(before: Before, order: Order) -> tuple[ObjectRef, ...]:
    """Write the ids, removed rows and segments of the next version."""
    side, change, objects = before.side, order.change, before.version.objects
    removed = np.union1d(before.version.vectors(side).removed, change.gone)
    ids, lost = before.named("ids"), before.named("removed")
    if change.size:
        table = id_batches(change.next_ids())
        ids = (objects.write_table(f"ids/{side}", IDS_SCHEMA, table),)
        lost = write_removed(objects, side, removed)
    return (*ids, *lost, *_segments(before, order, removed))


def _segments(before: Before, order: Order, removed: NDArray[np.int64]) -> list[ObjectRef]:
    side, fresh, objects = before.side, order.change.fresh, before.version.objects
    old = before.version.vectors(side)
    vectors, digests = before.named("vectors"), before.named("digests")
    kept = segments_kept([ref.rows for ref in vectors], len(fresh))
    refs: list[ObjectRef] = []
    first = 0
    for number, pair in enumerate(zip(vectors[:kept], digests[:kept], strict=True)):
        span = range(first, first + pair[0].rows)
        first = span.stop
        if order.purge and _holds_removed(old, removed, span):
            rows = _zeroed(old, removed, span)
            refs += write_segment(objects, side, number, old.dim, rows, before.info.refine)
        else:
            refs += pair
    if len(fresh):
        rows = _tail(objects, order, _zeroed(old, removed, range(first, old.n)))
        refs += write_segment(objects, side, kept, old.dim, rows, before.info.refine)
    return refs


def _tail(
    objects: Objects, order: Order, merged: Iterator[NDArray[np.float16]]
) -> Iterator[NDArray[np.float16]]:
    """Yield the last segment: merged small segments, then the new vectors."""
    yield from merged
    located = locate(objects, order.change.fresh, order.shards)
    yield from vector_blocks(objects, located, order.shards)


def _within(ids: NDArray[np.int64], span: range) -> NDArray[np.int64]:
    """Return the ids within ``span``; ``ids`` must be ascending."""
    low, high = np.searchsorted(ids, (span.start, span.stop))
    return ids[low:high]


def _holds_removed(old: Vectors, removed: NDArray[np.int64], span: range) -> bool:
    """Return whether any of these rows is removed and not yet zeroed."""
    dead, step = _within(removed, span), block_rows(old.dim)
    return any(old.take(dead[at : at + step]).any() for at in range(0, len(dead), step))


def _zeroed(old: Vectors, removed: NDArray[np.int64], span: range) -> Iterator[NDArray[np.float16]]:
    """Yield rows, with zeros for removed ones."""
    step = block_rows(old.dim)
    for at in range(span.start, span.stop, step):
        part = range(at, min(at + step, span.stop))
        block = old.take(np.arange(part.start, part.stop))
        block[_within(removed, part) - at] = 0
        yield block


def _update(index: Any, vectors: Vectors, before: IndexInfo, order: Order) -> None:
    remove_vectors(index, order.change.gone, before.rows)
    fresh = np.arange(before.rows, vectors.n)
    step = block_rows(vectors.dim)
    parts = (fresh[at : at + step] for at in range(0, len(fresh), step))
    blocks = ((part, vectors.take(part)) for part in parts)
    add_vectors(index, blocks, thread_count(order.config.threads))


def _tune(index: Any, vectors: Vectors, info: IndexInfo, order: Order, timer: StageTimer) -> Tuning:
    config, threads = order.config, thread_count(order.config.threads)
    with timer.measure("truth"):
        yard = yardstick(vectors, None, order.queries, config.seed, threads)
        yard = replace(yard, fidelity=info.fidelity)
    with timer.measure("tune"):
        plan = _plan_of(index, info, config)
        found = tune(index, plan, yard, config.recall_target, threads)
        return hold(index, plan, yard, found, (info.nprobe, info.k_factor), threads)


def _plan_of(index: Any, info: IndexInfo, config: IndexConfig) -> IndexPlan:
    """Return the plan of an existing index for the cost model."""
    ivf = ivf_part(index)
    quantizer = getattr(ivf, "pq", None)
    bits = 8 if getattr(ivf, "sq", None) is not None else 32
    if quantizer is not None:
        bits = int(quantizer.nbits)
    return IndexPlan(
        factory=info.factory,
        reason=info.reason,
        n=info.n,
        dim=info.dim,
        nlist=1 if ivf is None else int(ivf.nlist),
        m=0 if quantizer is None else int(quantizer.M),
        bits=bits,
        code_dim=int(index.d if ivf is None else ivf.d),
        training_rows=info.training_rows,
        gpu=bits == 8 and quantizer is not None and gpus.detect(config.gpu) is not None,
    )
