"""Small published stores, made of real Parquet and vector objects, without crawl or model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.config import LimitsConfig
from mmindex.keywords.build import build_segments
from mmindex.keywords.documents import Documents
from mmindex.keywords.summary import Summary, Weights, inputs_of, write_summary
from mmindex.media.images import ImageLimits, decode
from mmindex.models.encoder import Encoder
from mmindex.models.preprocess import to_pixels
from mmindex.store import versions
from mmindex.store.manifest import EncoderInfo, IndexInfo, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot
from mmindex.store.vectors import write_segment
from support.manifests import counts, index_info, manifest

Float32 = NDArray[np.float32]


def key_of(content: bytes | str) -> str:
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Side:
    """One modality's unique keys and their vectors, float32 (n, dim), unit length."""

    keys: Sequence[str]
    vectors: Float32


def images_table(rows: Sequence[tuple[str, str, str]]) -> pa.Table:
    """From (image_id, key, uri)."""
    n = len(rows)
    return pa.table(
        {
            "image_id": _names([row[0] for row in rows]),
            "key": pa.array([row[1] for row in rows], pa.string()),
            "source": pa.array(["folder/test"] * n, pa.string()),
            "uri": pa.array([row[2] for row in rows], pa.string()),
            "split": pa.array(["all"] * n, pa.string()),
            "width": pa.array([64] * n, pa.int32()),
            "height": pa.array([48] * n, pa.int32()),
            "format": pa.array(["PNG"] * n, pa.string()),
            "size_bytes": pa.array([100] * n, pa.int64()),
        }
    )


def _names(texts: Sequence[str]) -> pa.Array:
    """Texts as in a store: names of files can contain lone surrogates."""
    data = [text.encode("utf-8", "surrogatepass") for text in texts]
    return pa.array(data, pa.binary()).cast(pa.string(), safe=False)


def captions_table(rows: Sequence[tuple[str, str]]) -> pa.Table:
    """From (image_id, text); ids are ``<image_id>#<n>``."""
    counts: dict[str, int] = {}
    ids = []
    for image_id, _ in rows:
        ids.append(f"{image_id}#{counts.get(image_id, 0)}")
        counts[image_id] = counts.get(image_id, 0) + 1
    texts = [text.encode("utf-8", "surrogatepass") for _, text in rows]
    return pa.table(
        {
            "caption_id": pa.array(ids, pa.string()),
            "key": pa.array([key_of(text) for text in texts], pa.string()),
            "image_id": _names([row[0] for row in rows]),
            "text": pa.array(texts, pa.binary()).cast(pa.string(), safe=False),
        }
    )


def write_tables(
    objects: Objects, images: pa.Table, captions: pa.Table, group_rows: int = 65_536
) -> tuple[ObjectRef, ObjectRef]:
    """Write both tables, in row groups of ``group_rows``."""
    return (
        objects.write_table("images", images.schema, images.to_batches(group_rows)),
        objects.write_table("captions", captions.schema, captions.to_batches(group_rows)),
    )


def write_side(
    objects: Objects, modality: str, side: Side, segment_rows: int
) -> tuple[list[ObjectRef], IndexInfo]:
    """Write ``ids``, ``vectors`` and ``digests`` for exact search."""
    schema = pa.schema([("key", pa.string())])
    ids = pa.table({"key": pa.array(list(side.keys), pa.string())}, schema=schema)
    refs = [objects.write_table(f"ids/{modality}", schema, ids.to_batches())]
    half = side.vectors.astype(np.float16)
    dim = half.shape[1]
    for number, start in enumerate(range(0, len(half), segment_rows)):
        refs += write_segment(objects, modality, number, dim, [half[start : start + segment_rows]])
    info = index_info(modality, n=len(half), dim=dim)
    return refs, info


def make_store(
    root: Path,
    images: pa.Table,
    captions: pa.Table,
    sides: dict[str, Side],
    encoder: EncoderInfo | None,
    *,
    segment_rows: int = 1_000,
    group_rows: int = 65_536,
    keywords: bool = False,
) -> Snapshot:
    """Publish the next version with these tables, vectors and exact indexes."""
    layout = versions.create_layout(root)
    before = versions.read_current(layout)
    objects = Objects(layout)
    refs = list(write_tables(objects, images, captions, group_rows))
    indexes = {}
    for modality, side in sides.items():
        parts, indexes[modality] = write_side(objects, modality, side, segment_rows)
        refs += parts
    made = manifest(
        version=1 if before is None else before.version + 1,
        parent=None if before is None else before.version,
        stages=("crawl", "encode", "index") if encoder else ("crawl",),
        counts=counts(
            indexed=len(images),
            captions=len(captions),
            unique_images=len(set(images["key"].to_pylist())),
            unique_texts=len(set(captions["key"].to_pylist())),
        ),
        encoder=encoder,
        indexes=indexes,
        objects=tuple(refs),
    )
    if keywords:
        words = write_keywords(Snapshot(objects, made))
        made = msgspec.structs.replace(made, objects=(*made.objects, *words))
    versions.publish_version(objects, made)
    return Snapshot(objects, made)


def write_keywords(snapshot: Snapshot) -> list[ObjectRef]:
    """Write the keyword index of a version; its weights are not fitted."""
    built = build_segments(snapshot, Documents(snapshot))
    summary = Summary(inputs_of(snapshot.manifest), Weights(), built.lengths)
    return [*built.refs, write_summary(snapshot.objects, summary)]


def with_manifest(snapshot: Snapshot, **changes: object) -> Snapshot:
    """Return the same objects with another manifest; nothing is published."""
    return replace(snapshot, manifest=msgspec.structs.replace(snapshot.manifest, **changes))


def reopened(snapshot: Snapshot) -> Snapshot:
    """Return the same version for a reader that has verified nothing yet."""
    return Snapshot(Objects(snapshot.layout), snapshot.manifest)


def encode_files(encoder: Encoder, files: Sequence[bytes]) -> Float32:
    """Return vectors of image files, computed as in the encode stage."""
    limits = ImageLimits.of(LimitsConfig())
    pixels = [to_pixels(decode(data, limits), encoder.preprocess) for data in files]
    return encoder.encode_images(np.stack(pixels))


def image_store(
    root: Path,
    images: Mapping[str, Path],
    captions: Sequence[tuple[str, str]],
    encoder: Encoder,
    *,
    keywords: bool = False,
) -> Snapshot:
    """Publish real image files, by image id, with captions (image id, text)."""
    files = {image_id: path.read_bytes() for image_id, path in images.items()}
    rows = [(image_id, key_of(data), str(images[image_id])) for image_id, data in files.items()]
    unique = {key_of(data): data for data in files.values()}
    sides = {"image": Side(list(unique), encode_files(encoder, list(unique.values())))}
    texts = {key_of(text): text for _, text in captions}
    if texts:
        sides["text"] = Side(list(texts), encoder.encode_texts(list(texts.values())))
    return make_store(
        root, images_table(rows), captions_table(captions), sides, encoder.info, group_rows=3,
        keywords=keywords,
    )  # fmt: skip
