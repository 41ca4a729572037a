"""The index stage: both sides of the corpus, each tuned with queries from the other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.index.build import IndexReport, build_index
from mmindex.index.decide import NOT_IN_RECIPE, UpdatePlan, recipe_of
from mmindex.index.extend import Before, Order, Retrain, extend_index, plan_index
from mmindex.index.fill import ClusterFiller, Filler, ProcessFiller
from mmindex.index.gather import as_keys, locate, vector_blocks
from mmindex.index.train import sample_rows
from mmindex.index.tune import TUNING_QUERIES
from mmindex.runs.context import Context
from mmindex.runs.figures import IndexFigures
from mmindex.runs.keyword_stage import keyword_objects
from mmindex.search.calibration import CALIBRATION
from mmindex.search.golden import write_golden
from mmindex.store.chain import last_indexed
from mmindex.store.keys import unique_keys
from mmindex.store.manifest import IndexInfo, Manifest, ObjectRef
from mmindex.store.snapshot import TABLES

OTHER_SIDE = {Modality.IMAGE: Modality.TEXT, Modality.TEXT: Modality.IMAGE}
GOLDEN_QUERIES = 8
INDEX_OBJECTS = ("ids/", "removed/", "vectors/", "digests/", "index/", "golden/", "keywords/")


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of the corpus and the input of its index."""

    name: Modality
    table: ObjectRef
    other: ObjectRef
    fingerprint: str
    inputs: str
    purge: bool


@dataclass(frozen=True, slots=True)
class _Work:
    """The input of an index.

    Attributes:
        keys: string (n,), distinct.
        shards: embedding shards with their vectors.
        queries: float32 (q, dim) for tuning; None if there are none.
    """

    keys: pa.ChunkedArray[Any]
    shards: tuple[ObjectRef, ...]
    queries: NDArray[np.float32] | None


def index_stage(context: Context, draft: Manifest, *, purge: bool = False) -> Manifest:
    """Index both sides of the corpus, and the words of the images.

    The index of a side is kept if its inputs did not change, extended if that is sufficient, and
    otherwise rebuilt. ``context.figures`` records which of these happened and why.

    Args:
        context: the run's context; the index of its parent is extended.
        draft: crawled and encoded.
        purge: remove all traces of removed vectors from the objects of the new version.

    Raises:
        NoInputError: encode has not run.
        MmindexError: the requested index is impossible, or an embedding shard is damaged.
    """
    if "encode" not in draft.stages or draft.encoder is None:
        raise NoInputError("encode has not run yet", "run `mmindex encode` first")
    tables = {side: draft.require(name) for side, name in TABLES.items()}
    fingerprint = draft.encoder.fingerprint
    calibration = draft.named(CALIBRATION)
    draft = msgspec.structs.replace(
        draft,
        stages=("crawl", "encode", "index"),
        objects=draft.but((*INDEX_OBJECTS, CALIBRATION)),
    )
    indexes: dict[Modality, IndexInfo] = {}
    for name, table in tables.items():
        if not table.rows:
            continue
        inputs = _index_inputs(context, draft, name)
        side = _Side(name, table, tables[OTHER_SIDE[name]], fingerprint, inputs, purge)
        info, parts = _index_side(context, draft, side)
        indexes[name] = info
        draft = msgspec.structs.replace(draft, objects=(*draft.objects, *parts))
    if indexes != draft.indexes:
        draft = msgspec.structs.replace(
            draft, indexes=indexes, evaluation=None, evaluation_inputs=""
        )
        calibration = ()  # the evaluation stage fits another
    words = keyword_objects(context, draft)
    return msgspec.structs.replace(draft, objects=(*draft.objects, *words, *calibration))


def _index_inputs(context: Context, draft: Manifest, side: Modality) -> str:
    """Return a digest of everything that determines one side's index, including tuning queries."""
    config = context.config.index
    tables = [ref.sha256 for ref in draft.objects if ref.name in ("images", "captions")]
    shards = [ref.sha256 for ref in draft.named("embeddings/")]
    # Threads and GPUs differ between machines and must not cause a rebuild.
    settings = config.model_dump_json(exclude=NOT_IN_RECIPE)
    text = "\n".join([side, *tables, *shards, settings])
    return hashlib.sha256(text.encode()).hexdigest()


def _index_side(
    context: Context, draft: Manifest, side: _Side
) -> tuple[IndexInfo, tuple[ObjectRef, ...]]:
    """Keep, extend or build one side's index, and record which."""
    before = published_index(context, side.name)
    if isinstance(before, Before) and before.info.inputs == side.inputs and not side.purge:
        kept = IndexReport(before.info, _parts(before.version.manifest, side.name), {})
        _report(context, side, kept, UpdatePlan("kept", "nothing changed", 0, 0, before.info.n))
        return before.info, kept.objects
    config = context.config.index
    keys = unique_keys(context.objects, side.table)
    plan = plan_index(before, keys, side.fingerprint, config, purge=side.purge)
    work = _Work(
        keys=keys,
        shards=draft.named(f"embeddings/{side.name}/"),
        queries=_query_vectors(context, draft, OTHER_SIDE[side.name], side.other),
    )
    made, done = _execute(context, side, before, plan, work)
    recipe = recipe_of(side.fingerprint, config)
    made = replace(made, info=msgspec.structs.replace(made.info, inputs=side.inputs, recipe=recipe))
    _report(context, side, made, done)
    return made.info, (*made.objects, _golden(context, draft, side, made, work.queries))


def _execute(
    context: Context, side: _Side, before: Before | Retrain, plan: UpdatePlan, work: _Work
) -> tuple[IndexReport, UpdatePlan]:
    """Execute a plan; return what was actually done, which may be training."""
    objects, config = context.objects, context.config.index
    if isinstance(before, Before) and plan.change is not None:
        order = Order(plan.change, work.shards, config, work.queries, side.purge)
        made = extend_index(before, order)
        if isinstance(made, IndexReport):
            why = "its vectors did not change; it was tuned with new queries"
            return made, replace(plan, why=why) if plan.action == "kept" else plan
        plan = replace(plan, action="trained", why=made.why)
    made = build_index(
        objects, side.name, work.keys, work.shards, config, work.queries, _filler(context)
    )
    return made, plan


def _filler(context: Context) -> Filler | None:
    """Return who fills a new index: the nodes of a cluster, processes, or this process alone."""
    if context.cluster is not None:
        return ClusterFiller.on(context.cluster, context.config.encode.cores)
    processes = context.config.index.fill_processes
    return ProcessFiller(processes) if processes > 1 else None


def published_index(context: Context, side: Modality) -> Before | Retrain:
    """Return the last index of one side, fully verified, or why it cannot be used."""
    version = last_indexed(context.layout, context.parent, side)
    if version is None:
        return Retrain("first build")
    try:
        for ref in _parts(version, side):
            context.objects.path(ref)
    except DataError as error:  # a damaged index must not be kept as unchanged
        get_logger("index").warning("building a damaged index again", why=error.message)
        return Retrain("the published one is damaged")
    return Before(context.snapshot(version), side)


def _parts(version: Manifest, side: Modality) -> tuple[ObjectRef, ...]:
    """Return the objects of one side's index."""
    return version.named(tuple(f"{kind}{side}" for kind in INDEX_OBJECTS))


def _report(context: Context, side: _Side, made: IndexReport, done: UpdatePlan) -> None:
    info = made.info
    told = {"why": done.why} if done.why else {"added": done.added, "removed": done.removed}
    get_logger("index").info(f"{side.name} index {done.action}", vectors=info.n, **told)
    context.figures.index[side.name] = IndexFigures.of(done, made)


def _golden(
    context: Context,
    draft: Manifest,
    side: _Side,
    made: IndexReport,
    queries: NDArray[np.float32] | None,
) -> ObjectRef:
    """Write a few queries with the results of the new index."""
    probe = context.snapshot(
        msgspec.structs.replace(
            draft, indexes={side.name: made.info}, objects=(*draft.objects, *made.objects)
        )
    )
    if queries is None:
        vectors = probe.vectors(side.name)
        queries = vectors.take(vectors.live_ids()[:GOLDEN_QUERIES]).astype(np.float32)
    return write_golden(probe, side.name, queries[:GOLDEN_QUERIES])


def _query_vectors(
    context: Context, draft: Manifest, side: Modality, table: ObjectRef
) -> NDArray[np.float32] | None:
    """Return a seeded sample of one side's vectors, as queries for the other side's index."""
    if not table.rows:
        return None
    keys = unique_keys(context.objects, table)
    rows = sample_rows(len(keys), TUNING_QUERIES, context.config.index.seed)
    shards = draft.named(f"embeddings/{side}/")
    # Taking rows of a large column copies all of it.
    located = locate(context.objects, as_keys(keys[row].as_py() for row in rows.tolist()), shards)
    return np.concatenate(list(vector_blocks(context.objects, located, shards))).astype(np.float32)
