"""Stores with forgotten images, and a search through every byte of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmindex.search.golden import check_golden
from mmindex.store import versions
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from mmindex.upkeep.check import check
from mmindex.upkeep.forget import ForgetReport, forget
from support.fakestore import run_build, write_photos

IMAGES = {f"p{n}.jpg": n for n in range(12)} | {"copy-of-3.jpg": 3}
ID = "folder/photos/p3.jpg"
COPY = "folder/photos/copy-of-3.jpg"


def build(place: Path, **values: Any) -> Manifest:
    """Build from the folder of photos, which is created if it does not exist."""
    if not (place / "photos").exists():
        write_photos(place / "photos", IMAGES)
    return run_build(place / "store", place / "photos", **values).manifest


def forget_ids(place: Path, *ids: str, **options: bool) -> ForgetReport:
    return forget(place / "store", ids or [ID], "20260101T000000-forget", **options)


def opened(place: Path) -> tuple[Layout, Manifest]:
    layout = versions.open_layout(place / "store")
    manifest = versions.read_current(layout)
    assert manifest is not None
    return layout, manifest


def vector_of(place: Path, key: str, side: str = "image") -> bytes:
    """Return the float16 vector of a key in the published shards."""
    layout, manifest = opened(place)
    for ref in manifest.named(f"embeddings/{side}/"):
        for row in Objects(layout).read_table(ref).to_pylist():
            if row["key"] == key:
                return np.array(row["vector"], np.float16).tobytes()
    raise AssertionError("no such vector")


def image_ids(place: Path) -> set[str]:
    layout, manifest = opened(place)
    ref = manifest.find("images")
    assert ref is not None
    return set(Objects(layout).read_table(ref)["image_id"].to_pylist())


def contents(root: Path) -> Iterator[tuple[str, bytes]]:
    """Return every file of a store as it is on disk, and Parquet files also uncompressed."""
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        yield str(path), data
        if data.startswith(b"PAR1"):
            with pq.ParquetFile(path) as file:
                table = file.read()
            sink = pa.BufferOutputStream()
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table.combine_chunks())
            yield f"{path} (decoded)", sink.getvalue().to_pybytes()
            yield f"{path} (metadata)", repr(table.schema.metadata).encode()


def assert_nowhere(root: Path, *needles: bytes) -> None:
    """Check that none of these bytes are anywhere in a store."""
    found = [
        (where, needle[:80])
        for where, data in contents(root)
        for needle in needles
        if needle in data
    ]
    assert found == []


def traces_of(data: bytes) -> list[bytes]:
    """Return the bytes of a file, and its sha256 in hex and raw."""
    digest = hashlib.sha256(data)
    return [data, digest.hexdigest().encode(), digest.digest()]


def assert_sound(place: Path) -> None:
    layout, _ = opened(place)
    assert check(layout.root, full=True).problems == ()
    assert check_golden(layout) == ()
