"""Embedding shards without the rows that no table needs any more."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

from mmindex.encode.shards import FAILED, binary_keys, shard_schema
from mmindex.errors import DataError
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects


def prune_shard(
    objects: Objects, ref: ObjectRef, live: pa.FixedSizeBinaryArray
) -> ObjectRef | None:
    """Write a shard again without the vectors and failures of keys that are not live.

    Args:
        objects: where the shard lies.
        ref: the shard.
        live: keys that stay, binary of 32 bytes.

    Returns:
        the new shard under the same name; ``ref`` itself where nothing had to go, None where
        nothing would stay.

    Raises:
        DataError: the shard is missing or damaged.
    """
    with objects.open_parquet(ref) as file:
        metadata = dict(file.schema_arrow.metadata or {})
        try:
            failed = json.loads(metadata.get(FAILED, b"{}"))
            failing = binary_keys(failed)
        except ValueError as error:
            raise DataError(f"{ref.name}: its list of failures cannot be read: {error}") from error
        kept = pc.is_in(failing, value_set=live).to_pylist()
        table = file.read()
    rows = pc.is_in(binary_keys(table["key"].combine_chunks()), value_set=live)
    gone = len(rows) - (pc.sum(rows).as_py() or 0)
    if not gone and all(kept):
        return ref
    if gone == len(rows) and not any(kept):
        return None
    lasting = {key: why for (key, why), stays in zip(failed.items(), kept, strict=True) if stays}
    metadata[FAILED] = json.dumps(lasting, sort_keys=True).encode()
    schema = shard_schema(table.schema.field("vector").type.list_size, metadata)
    return objects.write_table(ref.name, schema, [table.filter(rows).combine_chunks().cast(schema)])
