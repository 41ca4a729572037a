"""The two corpus tables that encoding starts from, written without the crawl."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mmindex.crawl.tables import CAPTIONS_SCHEMA, images_schema
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects


@dataclass(frozen=True, slots=True)
class Corpus:
    """``images`` and ``captions``."""

    images: ObjectRef
    captions: ObjectRef

    @property
    def tables(self) -> tuple[ObjectRef, ObjectRef]:
        return self.images, self.captions


def image_key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def text_key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def write_corpus(objects: Objects, paths: Sequence[Path], texts: Sequence[str] = ()) -> Corpus:
    """Return tables of these files and texts; text i belongs to file i modulo their number."""
    rows = [
        {
            "image_id": f"folder/test/{number:05d}-{path.name}",
            "key": image_key(path.read_bytes()),
            "source": "test",
            "uri": str(path),
            "split": "all",
            "width": 48,
            "height": 40,
            "format": "PNG",
            "size_bytes": path.stat().st_size,
        }
        for number, path in enumerate(paths)
    ]
    schema = images_schema({})
    images = objects.write_table("images", schema, [pa.Table.from_pylist(rows, schema)])
    texts_column = pa.array([text.encode("utf-8", "surrogatepass") for text in texts], pa.binary())
    owners = [rows[number % len(rows)]["image_id"] if rows else "" for number in range(len(texts))]
    columns = [
        pa.array([f"{owner}#{number}" for number, owner in enumerate(owners)], pa.string()),
        pa.array([text_key(text) for text in texts], pa.string()),
        pa.array(owners, pa.string()),
        # Arrow would refuse lone surrogates in a str; as bytes they pass.
        pa.Array.from_buffers(pa.string(), len(texts), texts_column.buffers()),
    ]
    captions = objects.write_table(
        "captions", CAPTIONS_SCHEMA, [pa.Table.from_arrays(columns, schema=CAPTIONS_SCHEMA)]
    )
    return Corpus(images, captions)
