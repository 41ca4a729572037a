"""The four stages, each from draft to draft: call the stage, put its objects into the manifest.

A stage whose inputs are those of the published version takes over its result unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mmindex.context import Context, require, rounded, unique_keys
from mmindex.crawl.crawl import CrawlReport, crawl
from mmindex.crawl.spec import parse_spec, source_name
from mmindex.encode.encode import encode, encoder_source
from mmindex.encode.survivors import drop_failed
from mmindex.errors import DataError, NoInputError
from mmindex.evaluate.evaluate import evaluate
from mmindex.gates import quarantine_gate, removal_gate
from mmindex.index.plan import check_kind
from mmindex.index_stage import INDEX_OBJECTS, index_stage
from mmindex.records import Modality
from mmindex.store import quarantine
from mmindex.store.manifest import Counts, Manifest, ObjectRef


def prepare(context: Context, draft: Manifest, wanted: Sequence[str]) -> None:
    """Find out now what would otherwise fail after hours: no such source, model or index.

    Raises:
        MmindexError: the settings cannot work.
    """
    check_kind(context.config.index.kind)
    for source in context.config.source if "crawl" in wanted else ():
        source_name(parse_spec(source.spec), context.config.fetch)
    if "encode" in wanted:
        context.encoder = encoder_source(context.config, draft.encoder)


def crawl_stage(context: Context, draft: Manifest) -> Manifest:
    """List, hash and probe every image of the sources."""
    objects, limits = context.objects, context.config.limits
    sources, config = context.config.source, context.config
    report = crawl(objects, sources, limits, config.fetch, rehash=config.crawl.rehash)
    context.reports["crawl"] = _crawl_figures(report)
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
        unique_images=len(unique_keys(objects, report.images)),
        unique_texts=len(unique_keys(objects, report.captions)),
        reasons=quarantine.count_reasons(report.quarantined),
    )
    return _after_change(
        draft,
        stages=("crawl",),
        counts=counts,
        objects=(*crawled, *_survivors(*crawled), *draft.named("embeddings/")),
    )


def _crawl_figures(report: CrawlReport) -> dict[str, object]:
    return {
        "seen": report.seen,
        "images": report.images.rows,
        "captions": report.captions.rows,
        "quarantined": len(report.quarantined),
        "ignored": report.ignored,
        "reasons": quarantine.count_reasons(report.quarantined),
        **report.details,
    }


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


def encode_stage(context: Context, draft: Manifest) -> Manifest:
    """Make sure that every live key has a vector, and drop the images that cannot have one."""
    objects = context.objects
    crawled = tuple(
        require(draft, name, "crawl")
        for name in ("crawl/images", "crawl/captions", "crawl/quarantine")
    )
    source = context.encoder or encoder_source(context.config, draft.encoder)
    report = encode(source, objects, (crawled[0], crawled[1]), draft, context.config)
    context.reports["encode"] = {
        "encoded_images": report.encoded_images,
        "encoded_texts": report.encoded_texts,
        "reused_images": report.reused_images,
        "reused_texts": report.reused_texts,
        "adopted_shards": report.adopted_shards,
        "failed": len(report.failed),
        "images_per_second": round(report.images_per_second, 2),
        "bottleneck": report.bottleneck,
        "seconds": rounded(report.seconds),
    }
    images, captions, failures = drop_failed(objects, crawled[0], crawled[1], report.failed)
    entries = [*quarantine.read_entries(objects, crawled[2]), *failures]
    quarantine.write_ledger(context.layout, entries)
    counts = msgspec.structs.replace(
        draft.counts,
        indexed=images.rows,
        quarantined=len(entries),
        captions=captions.rows,
        unique_images=len(unique_keys(objects, images)),
        unique_texts=len(unique_keys(objects, captions)),
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
    parts = tuple(ref for ref in draft.objects if not ref.name.startswith(INDEX_OBJECTS))
    if "encode" in draft.stages and parts == encoded:
        return draft
    return _after_change(draft, stages=("crawl", "encode"), counts=counts, objects=encoded)


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
