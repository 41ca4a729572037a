"""Draft the next version without forgotten images, only from the published version."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.core.records import QuarantineEntry
from mmindex.crawl.stage import corpus_fingerprint
from mmindex.encode.backlog import plan_backlog
from mmindex.encode.decoding import Failure
from mmindex.encode.prune import prune_shard
from mmindex.encode.shards import read_shard
from mmindex.encode.survivors import drop_failed
from mmindex.runs.context import Context
from mmindex.runs.context import survivors as tables_of
from mmindex.runs.index_stage import index_stage
from mmindex.runs.stages import evaluate_stage
from mmindex.store.forgotten import FORGOTTEN, Forgotten, write_forgotten
from mmindex.store.keys import count_distinct, live_keys
from mmindex.store.manifest import Manifest, ObjectRef, SourceSummary
from mmindex.store.objects import Objects
from mmindex.store.purge import is_forgotten
from mmindex.store.quarantine import (
    count_kept_out,
    count_reasons,
    read_entries,
    write_entries,
)
from mmindex.store.snapshot import Snapshot

# The row group size of the crawl, so that the next crawl of unchanged sources writes the same
# objects; see :mod:`mmindex.crawl.spool`.
_GROUP_ROWS: Final = 32_768
_NOTE: Final = f"ignored: {FORGOTTEN}"
Mask = NDArray[np.bool_]


def draft_without(
    context: Context, draft: Manifest, gone: Collection[str], forgotten: Forgotten
) -> Manifest:
    """Draft a version without some images: tables, vectors, indexes and evaluation.

    Args:
        context: the context of this run; ``parent`` is the published version.
        draft: the parent under the next number.
        gone: ids of the images to remove.
        forgotten: the new list.

    Raises:
        DataError: the published version is damaged, or no image with a vector would be left.
        NoInputError: the published version has not been crawled.
    """
    objects = context.objects
    draft, crawled, entries = _crawled(context.snapshot(draft), gone, forgotten)
    shards, failed = _pruned(context.snapshot(draft), crawled[:2])
    survivors = crawled
    if "encode" in draft.stages:
        images, captions, failures = drop_failed(objects, crawled[0], crawled[1], failed)
        entries = [*entries, *failures]
        survivors = (images, captions, write_entries(objects, "quarantine", entries))
    if not survivors[0].rows:
        raise DataError(
            "none of the images left could be encoded, and a version needs one",
            f"to forget everything, remove {objects.layout.root}",
        )
    quarantined, quarantined_captions = count_kept_out(entries)
    draft = msgspec.structs.replace(
        draft,
        counts=msgspec.structs.replace(
            draft.counts,
            indexed=survivors[0].rows,
            quarantined=quarantined,
            ignored=draft.counts.seen - survivors[0].rows - quarantined,
            captions=survivors[1].rows,
            unique_images=count_distinct(objects, survivors[0]),
            unique_texts=count_distinct(objects, survivors[1]),
            reasons=count_reasons(entries),
            captions_quarantined=quarantined_captions,
        ),
        stages=tuple(stage for stage in draft.stages if stage != "index"),
        indexes={},
        evaluation=None,
        evaluation_inputs="",
        objects=(write_forgotten(objects, forgotten), *crawled, *tables_of(*survivors), *shards),
    )
    return _searchable(context, draft)


def _searchable(context: Context, draft: Manifest) -> Manifest:
    """Index and evaluate again if the parent was indexed and evaluated."""
    parent = context.parent
    if parent is not None and "index" in parent.stages:
        draft = index_stage(context, draft, purge=True)
        if parent.evaluation is not None:
            draft = evaluate_stage(context, draft)
    return draft


def _crawled(
    before: Snapshot, images_gone: Collection[str], forgotten: Forgotten
) -> tuple[Manifest, tuple[ObjectRef, ObjectRef, ObjectRef], list[QuarantineEntry]]:
    """Return the crawl tables without the removed items, and the draft with new counts."""
    objects, draft = before.objects, before.manifest
    images, captions, kept_out = (
        draft.require(f"crawl/{name}") for name in ("images", "captions", "quarantine")
    )
    ids = pa.array(sorted(images_gone), pa.string())
    no_image, no_caption = _rows_of(objects, images, ids), _rows_of(objects, captions, ids)
    entries = read_entries(objects, kept_out)
    stay = [not is_forgotten(entry, forgotten) for entry in entries]
    kept = [entry for entry, stays in zip(entries, stay, strict=True) if stays]
    gone = (no_image, no_caption, ~np.array(stay, dtype=np.bool_))
    crawled = (
        _without(objects, images, no_image),
        _without(objects, captions, no_caption),
        write_entries(objects, "crawl/quarantine", kept),
    )
    draft = msgspec.structs.replace(
        draft,
        sources=tuple(_recounted(draft.sources, gone)),
        corpus_fingerprint=corpus_fingerprint(crawled[0], crawled[1]),
    )
    return draft, crawled, kept


def _rows_of(objects: Objects, ref: ObjectRef, ids: pa.Array) -> Mask:
    """Return which rows belong to these images: bool (rows,)."""
    found = [np.zeros(0, dtype=np.bool_)]
    for batch in objects.iter_batches(ref, ["image_id"]):
        hits = pc.is_in(batch["image_id"], value_set=ids)
        found.append(hits.to_numpy(zero_copy_only=False))
    return np.concatenate(found)


def _without(objects: Objects, ref: ObjectRef, gone: Mask) -> ObjectRef:
    """Return the table without some rows; the same object if no row is removed."""
    if not gone.any():
        return ref
    with objects.open_parquet(ref) as file:
        schema = file.schema_arrow

    def kept() -> Iterator[pa.RecordBatch]:
        first = 0
        for batch in objects.iter_batches(ref):
            yield batch.filter(pa.array(~gone[first : first + batch.num_rows]))
            first += batch.num_rows

    return objects.write_table(ref.name, schema, _grouped(kept(), schema))


def _grouped(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    waiting = schema.empty_table()
    for batch in batches:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch], schema=schema)])
        while waiting.num_rows >= _GROUP_ROWS:
            yield waiting.slice(0, _GROUP_ROWS).combine_chunks()
            waiting = waiting.slice(_GROUP_ROWS)
    if waiting.num_rows:
        yield waiting.combine_chunks()


def _recounted(
    sources: Sequence[SourceSummary], gone: tuple[Mask, Mask, Mask]
) -> Iterator[SourceSummary]:
    """Return the counts that the next crawl of each source will find."""
    counts: list[Callable[[SourceSummary], int]] = [
        lambda source: source.images,
        lambda source: source.captions,
        lambda source: source.quarantined,
    ]
    lost = []
    for mask, count in zip(gone, counts, strict=True):
        edges = np.cumsum([0, *(count(source) for source in sources)])
        lost.append([int(np.count_nonzero(mask[a:b])) for a, b in pairwise(edges)])
    for source, images, captions, quarantined in zip(sources, *lost, strict=True):
        ignored = images + quarantined
        notes = dict(source.notes)
        if ignored:
            notes[_NOTE] = notes.get(_NOTE, 0) + ignored
        yield msgspec.structs.replace(
            source,
            images=source.images - images,
            captions=source.captions - captions,
            quarantined=source.quarantined - quarantined,
            ignored=source.ignored + ignored,
            notes=dict(sorted(notes.items())),
        )


def _pruned(
    before: Snapshot, tables: Sequence[ObjectRef]
) -> tuple[tuple[ObjectRef, ...], dict[str, Failure]]:
    """Return shards with only the remaining keys, and the failures of these keys."""
    objects, draft = before.objects, before.manifest
    failed = {  # also for reasons that shards do not record
        entry.key: Failure(entry.reason, entry.detail)
        for entry in read_entries(objects, draft.find("quarantine"))
        if entry.stage == "encode"
    }
    shards = []
    for side, table in zip(Modality, tables, strict=True):
        live = live_keys(objects, table)
        refs = [
            pruned
            for ref in draft.named(f"embeddings/{side}/")
            if (pruned := prune_shard(objects, ref, live)) is not None
        ]
        shards += refs
        if draft.encoder is not None:
            read = [read_shard(objects, ref, draft.encoder) for ref in refs]
            known = plan_backlog(live, [shard for shard in read if shard is not None])
            failed.update(known.failed)
    return tuple(shards), failed
