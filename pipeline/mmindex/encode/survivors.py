"""Remove items that could not be encoded from the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.records import QuarantineEntry, Reason
from mmindex.encode.decoding import Failure
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects


def drop_failed(
    objects: Objects,
    images: ObjectRef,
    captions: ObjectRef,
    failed: Mapping[str, Failure],
) -> tuple[ObjectRef, ObjectRef, list[QuarantineEntry]]:
    """Write the tables without the rows whose key failed, and without captions of such images.

    Args:
        objects: the store's objects.
        images: the crawled ``images`` table.
        captions: the crawled ``captions`` table.
        failed: the reason why a key has no vector.

    Returns:
        The two tables (the same objects if nothing failed) and one quarantine entry for each
        dropped image, and for each dropped caption of an image that stays.
    """
    if not failed:
        return images, captions, []
    keys = pa.array(list(failed), pa.string())
    dropped = _rows_with(objects, images, "key", keys)
    orphaned = dropped["image_id"].combine_chunks()
    entries = [_entry(row, row["image_id"], row["key"], failed) for row in dropped.to_pylist()]
    entries += _failed_captions(objects, images, captions, failed, orphaned)
    kept_captions = _without(objects, captions, {"image_id": orphaned, "key": keys})
    return _without(objects, images, {"key": keys}), kept_captions, entries


def _entry(
    image: Mapping[str, str], item_id: str, key: str, failed: Mapping[str, Failure]
) -> QuarantineEntry:
    return QuarantineEntry(
        id=item_id,
        uri=image["uri"],
        source=image["source"],
        stage="encode",
        reason=failed[key].reason,
        detail=failed[key].detail,
        key=key,
    )


def _failed_captions(
    objects: Objects,
    images: ObjectRef,
    captions: ObjectRef,
    failed: Mapping[str, Failure],
    orphaned: pa.Array,
) -> list[QuarantineEntry]:
    """Return entries of captions without a vector; a dropped image includes its captions."""
    rows = _rows_with(objects, captions, "key", pa.array(list(failed), pa.string()))
    rows = rows.filter(pc.invert(pc.is_in(rows["image_id"], value_set=orphaned)))
    rows = rows.drop_columns("text")  # a lone surrogate in it cannot be converted to str
    owners = _rows_with(objects, images, "image_id", rows["image_id"].combine_chunks())
    by_id = {row["image_id"]: row for row in owners.to_pylist()}
    return [
        replace(
            _entry(by_id[row["image_id"]], row["caption_id"], row["key"], failed),
            reason=Reason.BAD_CAPTION,
        )
        for row in rows.to_pylist()
    ]


def _rows_with(objects: Objects, ref: ObjectRef, column: str, values: pa.Array) -> pa.Table:
    parts = [
        batch.filter(pc.is_in(batch[column], value_set=values))
        for batch in objects.iter_batches(ref)
    ]
    with objects.open_parquet(ref) as file:
        schema = file.schema_arrow
    return pa.Table.from_batches(parts, schema=schema)


def _without(objects: Objects, ref: ObjectRef, unwanted: Mapping[str, pa.Array]) -> ObjectRef:
    with objects.open_parquet(ref) as file:
        schema = file.schema_arrow

    def kept() -> Iterator[pa.RecordBatch]:
        for batch in objects.iter_batches(ref):
            keep = pa.array([True] * batch.num_rows)
            for column, values in unwanted.items():
                keep = pc.and_(keep, pc.invert(pc.is_in(batch[column], value_set=values)))
            yield batch.filter(keep)

    return objects.write_table(ref.name, schema, kept())
