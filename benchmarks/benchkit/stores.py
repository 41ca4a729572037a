"""Published stores of synthetic vectors, with index and names, but without encoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from benchkit.clustered import clustered
from mmindex.core.config import IndexConfig
from mmindex.index.build import build_index
from mmindex.store import versions
from mmindex.store.manifest import EncoderInfo
from mmindex.store.snapshot import open_snapshot
from support.index_stores import key_of, open_objects, write_shards
from support.manifests import counts, manifest
from support.stores import captions_table, images_table, write_tables


def published_store(root: Path, n: int, encoder: EncoderInfo) -> dict[str, Any]:
    """Publish a store of ``n`` images whose vectors have the encoder's dimensions.

    Returns:
        seconds of the index stage by part, and bytes of its objects.
    """
    objects = open_objects(root)
    vectors = clustered(n, encoder.dim)
    shards = write_shards(objects, vectors)
    del vectors
    keys = [key_of(number) for number in range(n)]
    report = build_index(objects, "image", keys, shards, IndexConfig())
    rows = [(f"bench/{number:09d}", key, f"/pictures/{number:09d}.jpg")
            for number, key in enumerate(keys)]  # fmt: skip
    tables = write_tables(objects, images_table(rows), captions_table([]))
    made = manifest(
        stages=("crawl", "encode", "index"),
        counts=counts(indexed=n, unique_images=n),
        encoder=encoder,
        indexes={"image": report.info},
        objects=(*tables, *report.objects),
    )
    versions.publish_version(objects, made)
    return {
        "seconds": dict(report.seconds),
        "bytes": sum(ref.bytes for ref in report.objects),
        "training_rows": report.info.training_rows,
    }


def widen(root: Path, n: int) -> None:
    """Publish the next version: the store's images, and synthetic ones without files up to ``n``.

    Columns that a source adds are null in the new rows; captions stay those of the real images.
    """
    with_files = open_snapshot(root)
    objects, before = with_files.objects, with_files.manifest
    images = with_files.table("images")
    images = images.filter(pc.invert(pc.starts_with(images["image_id"], "bench/")))
    there = images["key"].unique().to_pylist()
    real = [ref for ref in before.objects if ref.name.startswith("embeddings/image/")]
    synthetic = write_shards(objects, clustered(n - len(there), with_files.encoder.dim))
    keys = [*there, *(key_of(number) for number in range(n - len(there)))]
    report = build_index(objects, "image", keys, (*real, *synthetic), IndexConfig())
    rows = [(f"bench/{number:09d}", key, f"/pictures/{number:09d}.jpg")
            for number, key in enumerate(keys[len(there) :])]  # fmt: skip
    wide = pa.concat_tables([images, images_table(rows)], promote_options="default")
    wide = wide.select(images.column_names).cast(images.schema)
    replaced = (
        "crawl/", "images", "ids/image", "index/image", "golden/image", "vectors/image/",
        "digests/image/",
    )  # fmt: skip
    kept = [ref for ref in before.objects if not ref.name.startswith(replaced)]
    table = objects.write_table("images", wide.schema, wide.to_batches(65_536))
    made = msgspec.structs.replace(
        before,
        version=before.version + 1,
        parent=before.version,
        counts=msgspec.structs.replace(
            before.counts, seen=len(wide), indexed=len(wide), unique_images=n
        ),
        indexes={**before.indexes, "image": report.info},
        objects=(table, *report.objects, *kept),
    )
    versions.publish_version(objects, made)
