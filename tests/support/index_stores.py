"""Small stores with embedding shards and indexes, created with the real store and stage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.config import IndexConfig
from mmindex.index.build import IndexReport, build_index
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.store.versions import create_layout
from support.manifests import manifest


def key_of(number: int) -> str:
    """Return a key in the form of real ones: 64 hex digits."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def write_shards(
    objects: Objects, vectors: NDArray[np.float16], rows: int = 8_192, modality: str = "image"
) -> tuple[ObjectRef, ...]:
    """Write embedding shards like the encode stage; row i of all has the key ``key_of(i)``."""
    dim = vectors.shape[1]
    schema = pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float16(), dim), nullable=False),
        ]
    )

    def batches(start: int, stop: int) -> Iterator[pa.RecordBatch]:
        part = np.ascontiguousarray(vectors[start:stop])
        column = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), dim)
        keys = pa.array([key_of(number) for number in range(start, stop)])
        yield pa.record_batch([keys, column], schema=schema)

    return tuple(
        objects.write_table(
            f"embeddings/{modality}/{number:05d}",
            schema,
            batches(start, min(start + rows, len(vectors))),
        )
        for number, start in enumerate(range(0, len(vectors), rows))
    )


def manifest_of(report: IndexReport, modality: str = "image") -> Manifest:
    """Return a manifest that contains only an index."""
    return manifest(indexes={modality: report.info}, objects=report.objects)


def open_objects(folder: Path) -> Objects:
    """Return the objects of a new or existing store."""
    return Objects(create_layout(folder))


def indexed(
    folder: Path,
    vectors: NDArray[np.float16],
    config: IndexConfig,
    queries: NDArray[np.float32] | None = None,
    order: Sequence[int] | None = None,
) -> Snapshot:
    """Return a store whose image index contains ``vectors`` (in ``order``)."""
    objects = open_objects(folder)
    shards = write_shards(objects, vectors, rows=max(1, len(vectors) // 3))
    numbers = range(len(vectors)) if order is None else order
    keys = [key_of(number) for number in numbers]
    report = build_index(objects, "image", keys, shards, config, queries)
    return Snapshot(objects, manifest_of(report))
