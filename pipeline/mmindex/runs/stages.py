"""The four stages, each from draft to draft: run the stage, put its objects into the manifest.

A stage with the same inputs as the published version keeps its result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from mmindex.cluster.join import Joined
from mmindex.core.errors import DataError, NoInputError
from mmindex.core.modality import Modality
from mmindex.crawl.metadata import PhotoRules
from mmindex.encode.cluster import ClusterWorker
from mmindex.encode.given import GivenFiles
from mmindex.encode.stage import encode, encoder_source, with_maps
from mmindex.encode.survivors import drop_failed
from mmindex.evaluate.fit import calibrate
from mmindex.evaluate.stage import evaluate
from mmindex.index.plan import check_kind
from mmindex.runs.context import Context, after_change, quarantine_gate, survivors
from mmindex.runs.crawl_stage import crawl_stage, names_of_sources
from mmindex.runs.diff import Tables, compare
from mmindex.runs.figures import EncodeFigures
from mmindex.runs.index_stage import INDEX_OBJECTS, index_stage
from mmindex.search.calibration import CALIBRATION, write_calibrations
from mmindex.store import quarantine
from mmindex.store.forgotten import FORGOTTEN
from mmindex.store.keys import count_distinct
from mmindex.store.manifest import Manifest


def check_settings(context: Context, wanted: Sequence[str]) -> None:
    """Find errors that would otherwise appear after hours: a missing source, an impossible index.

    Raises:
        MmindexError: the settings cannot work.
    """
    check_kind(context.config.index.kind)
    if "crawl" in wanted:
        PhotoRules.of(context.config.crawl)
        names_of_sources(context)


def prepare(context: Context, draft: Manifest, wanted: Sequence[str]) -> None:
    """Join the cluster, and find the model's files before the corpus is read.

    Weights are downloaded if necessary. The nodes of a cluster determine the model's precision.

    Raises:
        NetworkError: there is no cluster.
        MmindexError: there is no such model, its files are not available, or a node of the cluster
            is not suitable.
    """
    config = context.config
    if config.run.cluster and {*wanted} != {"evaluate"}:
        context.cluster = Joined.join(config.run.cluster, context.layout, config)
    if "encode" not in wanted:
        return
    if context.cluster is not None:
        worker = ClusterWorker.on(context.cluster, config, draft.encoder, encoder_source)
        context.cluster_worker = worker
        context.encoder = with_maps(worker.source, config)
    else:
        context.encoder = encoder_source(config, draft.encoder)
    GivenFiles.of(context.config, context.encoder.info)  # before the crawl: the model must fit


def encode_stage(context: Context, draft: Manifest) -> Manifest:
    """Ensure that every live key has a vector, and drop the images that cannot have one."""
    objects = context.objects
    crawled = tuple(
        draft.require(name) for name in ("crawl/images", "crawl/captions", "crawl/quarantine")
    )
    source = context.encoder or encoder_source(context.config, draft.encoder)
    report = encode(
        source,
        context.snapshot(draft),
        (crawled[0], crawled[1]),
        context.config,
        files=GivenFiles.of(context.config, source.info),
        retry=context.retry,
        cluster=context.cluster_worker,
    )
    context.figures.encode = EncodeFigures.of(report)
    images, captions, failures = drop_failed(objects, crawled[0], crawled[1], report.failed)
    entries = [*quarantine.read_entries(objects, crawled[2]), *failures]
    quarantine.write_ledger(context.layout, entries)
    if failures and context.figures.changes is not None:  # so far, those of crawled images
        before = Tables.of(context.parent, "")
        context.figures.changes = compare(objects, before, Tables(images, captions))
    kept_out = quarantine.count_kept_out(entries)
    counts = msgspec.structs.replace(
        draft.counts,
        indexed=images.rows,
        quarantined=kept_out[0],
        captions=captions.rows,
        unique_images=count_distinct(objects, images),
        unique_texts=count_distinct(objects, captions),
        reasons=quarantine.count_reasons(entries),
        captions_quarantined=kept_out[1],
    )
    limits = context.config.limits
    if error := quarantine_gate(draft.sources, entries, limits.max_quarantine):
        raise error
    if not images.rows:
        raise DataError(
            "no image could be encoded", "see `mmindex quarantine list` for the reasons"
        )
    ledger = quarantine.write_entries(objects, "quarantine", entries)
    shards = tuple(ref for side in Modality for ref in report.shards[side])
    draft = msgspec.structs.replace(draft, encoder=report.encoder)
    tables = (*draft.named(FORGOTTEN), *crawled, *survivors(images, captions, ledger))
    encoded = (*tables, *shards)
    parts = draft.but((*INDEX_OBJECTS, CALIBRATION))
    if "encode" in draft.stages and parts == encoded:
        return draft
    return after_change(draft, stages=("crawl", "encode"), counts=counts, objects=encoded)


def evaluate_stage(context: Context, draft: Manifest) -> Manifest:
    """Calibrate and measure; if indexes and settings did not change, everything is kept."""
    if "index" not in draft.stages:
        raise NoInputError("index has not run yet", "run `mmindex index` first")
    config = context.config.evaluate
    inputs = "\n".join(
        [*(info.inputs for info in draft.indexes.values()), config.model_dump_json()]
    )
    digest = hashlib.sha256(inputs.encode()).hexdigest()
    if draft.evaluation is not None and draft.evaluation_inputs == digest:
        return draft
    draft = msgspec.structs.replace(draft, objects=draft.but((CALIBRATION,)))
    if calibrations := calibrate(context.snapshot(draft), config):
        ref = write_calibrations(context.objects, calibrations)
        draft = msgspec.structs.replace(draft, objects=(*draft.objects, ref))
    evaluation = evaluate(context.snapshot(draft), config)
    return msgspec.structs.replace(
        draft, evaluation=msgspec.to_builtins(evaluation), evaluation_inputs=digest
    )


BY_NAME: dict[str, Callable[[Context, Manifest], Manifest]] = {
    "crawl": crawl_stage,
    "encode": encode_stage,
    "index": index_stage,
    "evaluate": evaluate_stage,
}
