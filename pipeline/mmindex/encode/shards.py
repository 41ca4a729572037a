"""Embedding shards: self-contained Parquet objects with a key and its vector in each row.

A shard says in its own metadata which encoder made it and which items failed. So a shard that a
killed run left behind, listed by no version, can be taken up by the next run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmindex.core.errors import DataError
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.core.records import Reason
from mmindex.encode.decoding import Failure
from mmindex.store import versions
from mmindex.store.keys import Keys, batch_keys
from mmindex.store.layout import Layout
from mmindex.store.manifest import EncoderInfo, ObjectRef
from mmindex.store.objects import Objects, hash_file

_FINGERPRINT = b"mmindex.fingerprint"
_MODALITY = b"mmindex.core.modality"
_SEQUENCE = b"mmindex.sequence"
FAILED = b"mmindex.failed"
_MAGIC = b"PAR1"
_SHA256_HEX_DIGITS = 64

# About the file as it was just then, not about its content: never remembered, so that the next
# run looks again. The limits' verdicts are cheap to find again, and limits may be changed.
_PASSING = frozenset(
    {
        Reason.CHANGED,
        Reason.MISSING,
        Reason.UNREADABLE,
        Reason.UNSAFE_PATH,
        Reason.BAD_ARCHIVE_MEMBER,
        Reason.TOO_LARGE,
        Reason.TOO_THIN,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """The content of one shard.

    Attributes:
        ref: the object.
        keys: of the rows.
        failed: items that this encoder cannot encode, by key in hex.
    """

    ref: ObjectRef
    keys: Keys
    failed: dict[str, Failure]


def shard_name(modality: Modality, number: int) -> str:
    """A shard's name in the manifest."""
    return f"embeddings/{modality}/{number:05d}"


def number_of(ref: ObjectRef) -> int:
    """A shard's number, from its name."""
    return int(ref.name.rpartition("/")[2])


def shard_schema(dim: int, metadata: Mapping[bytes, str | bytes]) -> pa.Schema:
    """The schema of a shard of vectors with ``dim`` columns."""
    return pa.schema(
        [pa.field("key", pa.string()), pa.field("vector", pa.list_(pa.float16(), dim))],
        metadata=dict(metadata),
    )


def write_shard(
    objects: Objects,
    name: str,
    info: EncoderInfo,
    rows: tuple[Sequence[str], NDArray[np.float16]],
    failed: Mapping[str, Failure],
) -> ObjectRef:
    """Write and publish one shard.

    Args:
        objects: where to.
        name: from :func:`shard_name`.
        info: the encoder.
        rows: keys in hex, and their vectors: float16 (n, dim), unit length.
        failed: the shard's items that have no vector.
    """
    keys, vectors = rows
    _, modality, number = name.split("/")
    lasting = {
        key: [failure.reason, failure.detail]
        for key, failure in failed.items()
        if failure.reason not in _PASSING
    }
    metadata = {
        _FINGERPRINT: info.fingerprint,
        _MODALITY: modality,
        _SEQUENCE: str(int(number)),
        FAILED: json.dumps(lasting, sort_keys=True),
    }
    schema = shard_schema(info.dim, metadata)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), info.dim)
    table = pa.Table.from_arrays([pa.array(keys, pa.string()), column], schema=schema)
    return objects.write_table(name, schema, [table])


def read_shard(objects: Objects, ref: ObjectRef, info: EncoderInfo) -> Shard | None:
    """A shard's keys and failures; None when another encoder made it.

    Raises:
        DataError: the shard is missing, damaged, or not a shard.
    """
    with objects.open_parquet(ref) as file:
        metadata = file.schema_arrow.metadata or {}
        if metadata.get(_FINGERPRINT) != info.fingerprint.encode():
            return None
        keys = batch_keys(ref.name, file.iter_batches(columns=["key"]))
    return Shard(ref, keys, _read_failed(metadata, ref))


def _read_failed(metadata: Mapping[bytes, bytes], ref: ObjectRef) -> dict[str, Failure]:
    try:
        stored = json.loads(metadata.get(FAILED, b"{}"))
        return {key: Failure(Reason(why), detail) for key, (why, detail) in stored.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{ref.name}: its list of failures cannot be read: {error}") from error


def is_shard(path: Path) -> bool:
    """Whether a file is an embedding shard of any encoder."""
    if not _is_parquet(path):
        return False
    try:
        metadata = pq.read_schema(path).metadata
    except pa.ArrowInvalid:  # damaged: nobody can take it up
        return False
    return bool(metadata) and _FINGERPRINT in metadata


def find_orphans(objects: Objects, info: EncoderInfo) -> dict[Modality, list[ObjectRef]]:
    """Shards of this encoder that no version lists, in the order they were made.

    Each is hashed before it is opened; one that is not what its name says is left alone.

    Raises:
        MmindexError: the store cannot be read.
    """
    found: list[tuple[int, str, Modality, ObjectRef]] = []
    listed = _listed(objects.layout)
    for path in _object_files(objects.layout):
        if path.name in listed or not _is_parquet(path):
            continue
        if hash_file(path) != path.name:
            get_logger("encode").warning("passing over a damaged object", path=str(path))
            continue
        file_schema = pq.read_schema(path)
        metadata = file_schema.metadata or {}
        if metadata.get(_FINGERPRINT) != info.fingerprint.encode():
            continue
        number, modality = int(metadata[_SEQUENCE]), Modality(metadata[_MODALITY].decode())
        ref = ObjectRef(
            name=shard_name(modality, number),
            sha256=path.name,
            bytes=path.stat().st_size,
            rows=pq.read_metadata(path).num_rows,
        )
        found.append((number, path.name, modality, ref))
    found.sort(key=lambda entry: entry[:2])
    return {side: [ref for _, _, own, ref in found if own is side] for side in Modality}


def _listed(layout: Layout) -> set[str]:
    """The objects of all versions. Unreadable versions are skipped; adoption checks every shard."""
    listed: set[str] = set()
    for number in versions.list_versions(layout):
        try:
            listed |= {ref.sha256 for ref in versions.read_version(layout, number).objects}
        except DataError as error:
            get_logger("encode").warning("passing over a damaged version", why=error.message)
    return listed


def _object_files(layout: Layout) -> Iterator[Path]:
    for folder in sorted(layout.objects_dir.iterdir()):
        for path in sorted(folder.iterdir()):
            if len(path.name) == _SHA256_HEX_DIGITS:
                yield path


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
