"""The four stages, each from draft to draft: call the stage, put its objects into the manifest.

A stage whose inputs are those of the published version takes over its result unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.config import Config
from mmindex.crawl.crawl import crawl
from mmindex.encode.encode import encode
from mmindex.encode.survivors import drop_failed
from mmindex.errors import DataError, NoInputError
from mmindex.evaluate.evaluate import evaluate
from mmindex.gates import quarantine_gate, removal_gate
from mmindex.index.build import sample_rows
from mmindex.index.gather import as_keys, locate, vector_blocks
from mmindex.index.index import build_index
from mmindex.records import Modality
from mmindex.search.golden import write_golden
from mmindex.store import quarantine
from mmindex.store.layout import Layout
from mmindex.store.manifest import Counts, IndexInfo, Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.vectors import Vectors

OTHER_SIDE = {Modality.IMAGE: Modality.TEXT, Modality.TEXT: Modality.IMAGE}
TUNING_QUERIES = 1_000  # recall of 0.95 is then known to about 0.2 points (10 answers each)
GOLDEN_QUERIES = 8
_INDEX_OBJECTS = ("ids/", "vectors/", "digests/", "index/", "golden/")


@dataclass(slots=True)
class Context:
    """What every stage of one run shares; ``reports`` collects their own numbers."""

    layout: Layout
    objects: Objects
    config: Config
    run_id: str
    parent: Manifest | None
    reports: dict[str, Any] = field(default_factory=dict)


def crawl_stage(context: Context, draft: Manifest) -> Manifest:
    """List, hash and probe every image of the sources."""
    objects, limits = context.objects, context.config.limits
    sources = context.config.source
    report = crawl(objects, sources, limits)
    quarantine.write_ledger(context.layout, report.quarantined)
    quarantine_gate(report.seen, len(report.quarantined), limits.max_quarantine)
    if not report.images.rows:
        raise DataError(
            f"no usable image in {', '.join(source.spec for source in sources)}",
            "see `mmindex quarantine list` for what was found and why it was kept out",
        )
    if context.parent is not None:
        removal_gate(objects, context.parent, report.images, limits.max_removed)
    crawled = (
        _named("crawl/images", report.images),
        _named("crawl/captions", report.captions),
        quarantine.write_entries(objects, "crawl/quarantine", report.quarantined),
    )
    draft = msgspec.structs.replace(
        draft, corpus_fingerprint=report.corpus_fingerprint, sources=report.sources
    )
    if all(draft.find(ref.name) == ref for ref in crawled):
        return draft
    counts = Counts(
        seen=report.seen,
        indexed=report.images.rows,
        quarantined=len(report.quarantined),
        ignored=report.ignored,
        captions=report.captions.rows,
        unique_images=len(_unique_keys(objects, report.images)),
        unique_texts=len(_unique_keys(objects, report.captions)),
        reasons=quarantine.count_reasons(report.quarantined),
    )
    return _after_change(
        draft,
        stages=("crawl",),
        counts=counts,
        objects=(*crawled, *_survivors(*crawled), *draft.named("embeddings/")),
    )


def _named(name: str, ref: ObjectRef) -> ObjectRef:
    return msgspec.structs.replace(ref, name=name)


def _survivors(
    images: ObjectRef, captions: ObjectRef, kept_out: ObjectRef
) -> tuple[ObjectRef, ...]:
    """The tables that search and evaluation read."""
    return _named("images", images), _named("captions", captions), _named("quarantine", kept_out)


def _after_change(draft: Manifest, **changes: Any) -> Manifest:
    """A draft whose later stages no longer hold."""
    return msgspec.structs.replace(
        draft, indexes={}, evaluation=None, evaluation_inputs="", **changes
    )


def _unique_keys(objects: Objects, table: ObjectRef) -> pa.Array:
    """The distinct keys of a table in order of first appearance: row i gets faiss id i."""
    return pc.unique(objects.read_table(table, ["key"])["key"])


def _require(draft: Manifest, name: str, stage: str) -> ObjectRef:
    ref = draft.find(name)
    if ref is None:
        raise NoInputError(f"{stage} has not run yet", f"run `mmindex {stage}` first")
    return ref


def encode_stage(context: Context, draft: Manifest) -> Manifest:
    """Make sure that every live key has a vector, and drop the images that cannot have one."""
    objects = context.objects
    crawled = tuple(
        _require(draft, name, "crawl")
        for name in ("crawl/images", "crawl/captions", "crawl/quarantine")
    )
    report = encode(objects, crawled[0], crawled[1], draft, context.config)
    context.reports["encode"] = {
        "encoded_images": report.encoded_images,
        "encoded_texts": report.encoded_texts,
        "reused_images": report.reused_images,
        "reused_texts": report.reused_texts,
        "adopted_shards": report.adopted_shards,
        "failed": len(report.failed),
        "images_per_second": round(report.images_per_second, 2),
        "bottleneck": report.bottleneck,
        "seconds": _rounded(report.seconds),
    }
    images, captions, failures = drop_failed(objects, crawled[0], crawled[1], report.failed)
    entries = [*quarantine.read_entries(objects, crawled[2]), *failures]
    quarantine.write_ledger(context.layout, entries)
    counts = msgspec.structs.replace(
        draft.counts,
        indexed=images.rows,
        quarantined=len(entries),
        captions=captions.rows,
        unique_images=len(_unique_keys(objects, images)),
        unique_texts=len(_unique_keys(objects, captions)),
        reasons=quarantine.count_reasons(entries),
    )
    quarantine_gate(counts.seen, counts.quarantined, context.config.limits.max_quarantine)
    if not images.rows:
        raise DataError(
            "no image could be encoded", "see `mmindex quarantine list` for the reasons"
        )
    kept_out = quarantine.write_entries(objects, "quarantine", entries)
    shards = tuple(ref for side in Modality for ref in report.shards[side])
    draft = msgspec.structs.replace(draft, encoder=report.encoder)
    encoded = (*crawled, *_survivors(images, captions, kept_out), *shards)
    parts = tuple(ref for ref in draft.objects if not ref.name.startswith(_INDEX_OBJECTS))
    if "encode" in draft.stages and parts == encoded:
        return draft
    return _after_change(draft, stages=("crawl", "encode"), counts=counts, objects=encoded)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def index_stage(context: Context, draft: Manifest) -> Manifest:
    """Index both sides of the corpus; a side whose inputs did not change is taken over."""
    if "encode" not in draft.stages or draft.encoder is None:
        raise NoInputError("encode has not run yet", "run `mmindex encode` first")
    tables = {
        Modality.IMAGE: _require(draft, "images", "crawl"),
        Modality.TEXT: _require(draft, "captions", "crawl"),
    }
    kept = tuple(ref for ref in draft.objects if not ref.name.startswith(_INDEX_OBJECTS))
    draft = msgspec.structs.replace(draft, stages=("crawl", "encode", "index"), objects=kept)
    indexes: dict[str, IndexInfo] = {}
    for side, table in tables.items():
        if not table.rows:
            continue
        other = tables[OTHER_SIDE[side]]
        inputs = _index_inputs(context, draft, side, other)
        taken_over = _take_over(context.parent, side, inputs)
        info, parts = taken_over or _build_side(context, draft, side, table, other)
        indexes[side] = msgspec.structs.replace(info, inputs=inputs)
        draft = msgspec.structs.replace(draft, objects=(*draft.objects, *parts))
    if indexes == draft.indexes:
        return draft
    return msgspec.structs.replace(draft, indexes=indexes, evaluation=None, evaluation_inputs="")


def _index_inputs(context: Context, draft: Manifest, side: Modality, other: ObjectRef) -> str:
    """Digest of everything that decides the index of one side, the tuning queries included."""
    config = context.config.index
    tables = [ref.sha256 for ref in draft.objects if ref.name in ("images", "captions")]
    shards = [ref.sha256 for ref in draft.named("embeddings/")]
    settings = config.model_dump_json()
    text = "\n".join([side, *tables, other.sha256, *shards, settings])
    return hashlib.sha256(text.encode()).hexdigest()


def _take_over(
    parent: Manifest | None, side: Modality, inputs: str
) -> tuple[IndexInfo, tuple[ObjectRef, ...]] | None:
    info = parent.indexes.get(side) if parent is not None else None
    if parent is None or info is None or info.inputs != inputs:
        return None
    prefixes = tuple(f"{kind}{side}" for kind in _INDEX_OBJECTS)
    return info, tuple(ref for ref in parent.objects if ref.name.startswith(prefixes))


def _build_side(
    context: Context, draft: Manifest, side: Modality, table: ObjectRef, other: ObjectRef
) -> tuple[IndexInfo, tuple[ObjectRef, ...]]:
    objects, config = context.objects, context.config.index
    queries = _query_vectors(context, draft, OTHER_SIDE[side], other)
    report = build_index(
        objects,
        side,
        _unique_keys(objects, table),
        draft.named(f"embeddings/{side}/"),
        config,
        queries,
    )
    context.reports[f"index {side}"] = {
        "factory": report.info.factory,
        "reason": report.info.reason,
        "vectors": report.info.n,
        "seconds": _rounded(report.seconds),
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
    keys = _unique_keys(context.objects, table)
    rows = sample_rows(len(keys), TUNING_QUERIES, context.config.index.seed)
    shards = draft.named(f"embeddings/{side}/")
    located = locate(context.objects, as_keys(keys.take(pa.array(rows))), shards)
    return np.concatenate(list(vector_blocks(context.objects, located, shards))).astype(np.float32)


def _first_vectors(objects: Objects, probe: Manifest, side: Modality) -> NDArray[np.float32]:
    vectors = Vectors(objects, probe, side)
    return vectors.take(np.arange(min(GOLDEN_QUERIES, vectors.n))).astype(np.float32)


def evaluate_stage(context: Context, draft: Manifest) -> Manifest:
    """Measure recall; a version whose indexes and settings did not change keeps its figures."""
    if "index" not in draft.stages:
        raise NoInputError("index has not run yet", "run `mmindex index` first")
    config = context.config.evaluate
    inputs = "\n".join(
        [*(info.inputs for info in draft.indexes.values()), config.model_dump_json()]
    )
    digest = hashlib.sha256(inputs.encode()).hexdigest()
    if draft.evaluation is not None and draft.evaluation_inputs == digest:
        return draft
    evaluation = evaluate(context.objects, draft, config)
    return msgspec.structs.replace(
        draft, evaluation=msgspec.to_builtins(evaluation), evaluation_inputs=digest
    )


BY_NAME: dict[str, Callable[[Context, Manifest], Manifest]] = {
    "crawl": crawl_stage,
    "encode": encode_stage,
    "index": index_stage,
    "evaluate": evaluate_stage,
}
