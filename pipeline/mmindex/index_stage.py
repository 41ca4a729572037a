"""The index stage: both sides of the corpus, each tuned with questions from the other."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.context import Context, require, rounded, unique_keys
from mmindex.errors import DataError, NoInputError
from mmindex.index.build import sample_rows
from mmindex.index.gather import as_keys, locate, vector_blocks
from mmindex.index.index import build_index
from mmindex.index.tune import TUNING_QUERIES
from mmindex.progress import get_logger
from mmindex.records import Modality
from mmindex.search.golden import write_golden
from mmindex.store.manifest import IndexInfo, Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.vectors import Vectors

OTHER_SIDE = {Modality.IMAGE: Modality.TEXT, Modality.TEXT: Modality.IMAGE}
GOLDEN_QUERIES = 8
INDEX_OBJECTS = ("ids/", "vectors/", "digests/", "index/", "golden/")


def index_stage(context: Context, draft: Manifest) -> Manifest:
    """Index both sides of the corpus; a side whose inputs did not change is taken over."""
    if "encode" not in draft.stages or draft.encoder is None:
        raise NoInputError("encode has not run yet", "run `mmindex encode` first")
    tables = {
        Modality.IMAGE: require(draft, "images", "crawl"),
        Modality.TEXT: require(draft, "captions", "crawl"),
    }
    kept = tuple(ref for ref in draft.objects if not ref.name.startswith(INDEX_OBJECTS))
    draft = msgspec.structs.replace(draft, stages=("crawl", "encode", "index"), objects=kept)
    indexes: dict[str, IndexInfo] = {}
    for side, table in tables.items():
        if not table.rows:
            continue
        other = tables[OTHER_SIDE[side]]
        inputs = _index_inputs(context, draft, side)
        taken_over = _take_over(context, side, inputs)
        info, parts = taken_over or _build_side(context, draft, side, table, other)
        indexes[side] = msgspec.structs.replace(info, inputs=inputs)
        draft = msgspec.structs.replace(draft, objects=(*draft.objects, *parts))
    if indexes == draft.indexes:
        return draft
    return msgspec.structs.replace(draft, indexes=indexes, evaluation=None, evaluation_inputs="")


def _index_inputs(context: Context, draft: Manifest, side: Modality) -> str:
    """Digest of everything that decides the index of one side, the tuning queries included."""
    config = context.config.index
    tables = [ref.sha256 for ref in draft.objects if ref.name in ("images", "captions")]
    shards = [ref.sha256 for ref in draft.named("embeddings/")]
    # Threads and GPUs belong to the machine: another one must not rebuild what is there.
    settings = config.model_dump_json(exclude={"threads", "gpu"})
    text = "\n".join([side, *tables, *shards, settings])
    return hashlib.sha256(text.encode()).hexdigest()


def _take_over(
    context: Context, side: Modality, inputs: str
) -> tuple[IndexInfo, tuple[ObjectRef, ...]] | None:
    """The published index of one side where nothing changed and every byte of it is sound."""
    parent = context.parent
    info = parent.indexes.get(side) if parent is not None else None
    if parent is None or info is None or info.inputs != inputs:
        return None
    prefixes = tuple(f"{kind}{side}" for kind in INDEX_OBJECTS)
    parts = tuple(ref for ref in parent.objects if ref.name.startswith(prefixes))
    try:
        for ref in parts:
            context.objects.path(ref)
    except DataError as error:  # a build that says "nothing changed" must not leave it so
        get_logger("index").warning("building a damaged index again", why=error.message)
        return None
    return info, parts


def _build_side(
    context: Context, draft: Manifest, side: Modality, table: ObjectRef, other: ObjectRef
) -> tuple[IndexInfo, tuple[ObjectRef, ...]]:
    objects, config = context.objects, context.config.index
    queries = _query_vectors(context, draft, OTHER_SIDE[side], other)
    report = build_index(
        objects,
        side,
        unique_keys(objects, table),
        draft.named(f"embeddings/{side}/"),
        config,
        queries,
    )
    context.reports[f"index {side}"] = {
        "factory": report.info.factory,
        "reason": report.info.reason,
        "vectors": report.info.n,
        "seconds": rounded(report.seconds),
    }
    probe = msgspec.structs.replace(
        draft, indexes={side: report.info}, objects=(*draft.objects, *report.objects)
    )
    golden = (
        queries[:GOLDEN_QUERIES] if queries is not None else _first_vectors(objects, probe, side)
    )
    return report.info, (*report.objects, write_golden(objects, probe, side, golden))


def _query_vectors(
    context: Context, draft: Manifest, side: Modality, table: ObjectRef
) -> NDArray[np.float32] | None:
    """A seeded sample of one side's vectors, to ask the other side's index with."""
    if not table.rows:
        return None
    keys = unique_keys(context.objects, table)
    rows = sample_rows(len(keys), TUNING_QUERIES, context.config.index.seed)
    shards = draft.named(f"embeddings/{side}/")
    located = locate(context.objects, as_keys(keys.take(pa.array(rows))), shards)
    return np.concatenate(list(vector_blocks(context.objects, located, shards))).astype(np.float32)


def _first_vectors(objects: Objects, probe: Manifest, side: Modality) -> NDArray[np.float32]:
    vectors = Vectors(objects, probe, side)
    return vectors.take(np.arange(min(GOLDEN_QUERIES, vectors.n))).astype(np.float32)
