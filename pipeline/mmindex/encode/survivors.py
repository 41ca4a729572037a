"""After encoding: take the images out of the tables that cannot have a vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from mmindex.core.records import QuarantineEntry
from mmindex.encode.decoding import Failure
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects


def drop_failed(
    objects: Objects,
    images: ObjectRef,
    captions: ObjectRef,
    failed: Mapping[str, Failure],
) -> tuple[ObjectRef, ObjectRef, list[QuarantineEntry]]:
    """Write the tables without the rows whose key failed, and without such images' captions.

    Args:
        objects: where the tables lie.
        images: the crawled ``images`` table.
        captions: the crawled ``captions`` table.
        failed: why a key has no vector.

    Returns:
        the two tables (the same objects where nothing failed) and one quarantine entry for each
        row of ``images`` that was dropped.
    """
    if not failed:
        return images, captions, []
    keys = pa.array(list(failed), pa.string())
    dropped = _rows_with(objects, images, "key", keys)
    entries = [
        QuarantineEntry(
            id=row["image_id"],
            uri=row["uri"],
            source=row["source"],
            stage="encode",
            reason=failed[row["key"]].reason,
            detail=failed[row["key"]].detail,
            key=row["key"],
        )
        for row in dropped.to_pylist()
    ]
    orphaned = dropped["image_id"].combine_chunks()
    kept_captions = _without(objects, captions, {"image_id": orphaned, "key": keys})
    return _without(objects, images, {"key": keys}), kept_captions, entries


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
