"""Remove rows that no table needs from embedding shards."""

from __future__ import annotations

import json

import pyarrow as pa

from mmindex.core.errors import DataError
from mmindex.encode.shards import FAILED, UNIT, shard_schema
from mmindex.store.keys import DistinctKeys, binary_keys, column_keys, places_of
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects


def prune_shard(objects: Objects, ref: ObjectRef, live: DistinctKeys) -> ObjectRef | None:
    """Rewrite a shard without the vectors and failures of keys that are not live.

    Args:
        objects: the store's objects.
        ref: the shard.
        live: keys that stay.

    Returns:
        The new shard under the same name; ``ref`` itself if nothing is removed, None if nothing
        would remain.

    Raises:
        DataError: the shard is missing or damaged.
    """
    with objects.open_parquet(ref) as file:
        metadata = dict(file.schema_arrow.metadata or {})
        try:
            failed = json.loads(metadata.get(FAILED, b"{}"))
            failing = binary_keys(list(failed))
        except ValueError as error:
            raise DataError(f"{ref.name}: its list of failures cannot be read: {error}") from error
        kept = (places_of(failing, live) >= 0).tolist()
        table = file.read()
    rows = places_of(column_keys(table["key"]), live) >= 0
    if rows.all() and all(kept):
        return ref
    if not rows.any() and not any(kept):
        return None
    lasting = {key: why for (key, why), stays in zip(failed.items(), kept, strict=True) if stays}
    metadata[FAILED] = json.dumps(lasting, sort_keys=True).encode()
    metadata.pop(UNIT, None)  # it no longer is the unit's shard
    schema = shard_schema(table.schema.field("vector").type.list_size, metadata)
    return objects.write_table(
        ref.name, schema, [table.filter(pa.array(rows)).combine_chunks().cast(schema)]
    )
