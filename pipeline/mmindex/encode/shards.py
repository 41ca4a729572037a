"""Embedding shards: self-contained Parquet objects with a key and its vector in each row.

A shard's own metadata has the encoder that made it and the items that failed. The next run can
therefore adopt a shard that a killed run left and no version lists.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmindex.core.errors import DataError, os_errors
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.core.records import Reason
from mmindex.core.threads import in_threads
from mmindex.encode.decoding import Failure
from mmindex.store import versions
from mmindex.store.keys import Keys, batch_keys
from mmindex.store.layout import Layout
from mmindex.store.manifest import EncoderInfo, ObjectRef
from mmindex.store.objects import Objects

_FINGERPRINT = b"mmindex.fingerprint"
_MODALITY = b"mmindex.core.modality"
UNIT = b"mmindex.unit"
FAILED = b"mmindex.failed"
_MAGIC = b"PAR1"
_SHA256_HEX_DIGITS = 64

# Failures due to the state of the file at that time, not its content: never recorded, so that the
# next run tries again. Limits are cheap to check again, and may be changed.
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
        keys: the keys of the rows.
        failed: items that this encoder cannot encode, by key in hex.
    """

    ref: ObjectRef
    keys: Keys
    failed: dict[str, Failure]


def shard_name(modality: Modality, number: int) -> str:
    """Return a shard's name in the manifest."""
    return f"embeddings/{modality}/{number:05d}"


def number_of(ref: ObjectRef) -> int:
    """Return a shard's number, from its name."""
    return int(ref.name.rpartition("/")[2])


def numbered(side: Modality, refs: Iterable[ObjectRef], first: int) -> tuple[ObjectRef, ...]:
    """Return shards with the names under which a version lists them."""
    return tuple(ref.named(shard_name(side, first + place)) for place, ref in enumerate(refs))


def shard_schema(dim: int, metadata: Mapping[bytes, str | bytes]) -> pa.Schema:
    """Return the schema of a shard of vectors with ``dim`` columns."""
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
    unit: str = "",
) -> ObjectRef:
    """Write and publish one shard. Its number is part of its name and not of its content.

    Args:
        objects: the store's objects.
        name: from :func:`shard_name`.
        info: the encoder.
        rows: keys in hex, and their vectors: float16 (n, dim), unit length.
        failed: the shard's items that have no vector.
        unit: the digest of the unit that it is made from, see :mod:`mmindex.encode.units`.
    """
    keys, vectors = rows
    metadata = {
        _FINGERPRINT: info.fingerprint,
        _MODALITY: name.split("/")[1],
        FAILED: json.dumps(lasting(failed), sort_keys=True),
        **({UNIT: unit} if unit else {}),
    }
    schema = shard_schema(info.dim, metadata)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), info.dim)
    table = pa.Table.from_arrays([pa.array(keys, pa.string()), column], schema=schema)
    return objects.write_table(name, schema, [table])


def lasting(failed: Mapping[str, Failure]) -> dict[str, list[str]]:
    """Return the failures that a shard records: reason and detail by key."""
    return {
        key: [failure.reason, failure.detail]
        for key, failure in failed.items()
        if failure.reason not in _PASSING
    }


def read_shard(objects: Objects, ref: ObjectRef, info: EncoderInfo) -> Shard | None:
    """Read a shard's keys and failures; None if another encoder made it.

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


@dataclass(frozen=True, slots=True)
class Leftover:
    """A shard that no version lists, as described by its footer: not verified yet.

    Attributes:
        ref: the object; it has no number yet.
        side: images or texts.
        fingerprint: fingerprint of the encoder that made it.
        unit: the digest of the unit that it was made from; empty if unknown.
    """

    ref: ObjectRef
    side: Modality
    fingerprint: str
    unit: str


def is_shard(path: Path) -> bool:
    """Return whether a file is an embedding shard of any encoder."""
    return _read_footer(path) is not None


def find_leftovers(layout: Layout, info: EncoderInfo) -> list[Leftover]:
    """Find shards of this encoder that no version lists, in the order of their sha256.

    Only the footers are read, several at a time, because network disks respond slowly but serve
    many requests at once.

    Raises:
        MmindexError: the store cannot be read.
    """
    listed = _listed(layout)
    paths = [path for path in _object_files(layout) if path.name not in listed]
    found = (entry for entry in in_threads(_read_footer, paths) if entry is not None)
    return [entry for entry in found if entry.fingerprint == info.fingerprint]


def find_orphans(objects: Objects, info: EncoderInfo) -> dict[Modality, list[ObjectRef]]:
    """Return the shards found by :func:`find_leftovers`, by side, without damaged ones.

    They are hashed several at a time and count as verified afterwards. A shard whose content does
    not match its name is ignored.

    Raises:
        MmindexError: the store cannot be read.
    """
    leftovers = find_leftovers(objects.layout, info)
    sound = in_threads(partial(is_sound, objects), [entry.ref for entry in leftovers])
    found: dict[Modality, list[ObjectRef]] = {side: [] for side in Modality}
    for entry, fine in zip(leftovers, sound, strict=True):
        if fine:
            found[entry.side].append(entry.ref)
    return found


def is_sound(objects: Objects, ref: ObjectRef) -> bool:
    """Return whether an object exists and matches its name; a damaged one is logged."""
    try:
        objects.path(ref)
    except DataError as error:
        get_logger("encode").warning("skipping a damaged object", why=error.message)
        return False
    return True


def _listed(layout: Layout) -> set[str]:
    """Return the objects of all versions.

    Unreadable versions are skipped; adoption checks every shard.
    """
    listed: set[str] = set()
    for number in versions.list_versions(layout):
        try:
            listed |= {ref.sha256 for ref in versions.read_version(layout, number).objects}
        except DataError as error:
            get_logger("encode").warning("skipping a damaged version", why=error.message)
    return listed


def _object_files(layout: Layout) -> Iterator[Path]:
    for folder in sorted(layout.objects_dir.iterdir()):
        for path in sorted(folder.iterdir()):
            if len(path.name) == _SHA256_HEX_DIGITS:
                yield path


def _read_footer(path: Path) -> Leftover | None:
    """Read the footer of a shard; None for other and unreadable files."""
    with os_errors(path):
        try:
            with path.open("rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    return None
                size = os.fstat(file.fileno()).st_size
                footer = pq.read_metadata(file)
                metadata = footer.metadata or {}
                side = Modality(metadata[_MODALITY].decode())
                fingerprint = metadata[_FINGERPRINT].decode()
                unit = metadata.get(UNIT, b"").decode()
        except (pa.ArrowException, FileNotFoundError, KeyError, ValueError):
            return None  # damaged, already removed by gc, or another table
        except OSError as error:
            if error.errno is not None:
                raise
            return None  # Arrow's exception for a damaged footer
    name = shard_name(side, 0)
    ref = ObjectRef(name=name, sha256=path.name, bytes=size, rows=footer.num_rows)
    return Leftover(ref, side, fingerprint, unit)
