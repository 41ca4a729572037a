"""Published stores of synthetic vectors, with index and names, but without encoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchkit.clustered import clustered
from mmindex.core.config import IndexConfig
from mmindex.index.build import build_index
from mmindex.store import versions
from mmindex.store.manifest import EncoderInfo
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
