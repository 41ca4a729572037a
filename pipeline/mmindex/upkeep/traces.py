"""Find forgotten items that are still in a store, for ``mmindex check --full``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmindex.core.errors import DataError, os_errors
from mmindex.store import versions
from mmindex.store.forgotten import FORGOTTEN, Forgotten, read_forgotten, rows_among
from mmindex.store.layout import Layout
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.purge import (
    DAMAGED,
    fetched_shards,
    forgotten_rows,
    is_forgotten,
    mentions,
    stamped_keys,
)
from mmindex.store.quarantine import read_ledger
from mmindex.store.snapshot import Snapshot

_ID_COLUMNS: Final = ("image_id", "id")
_SHA256: Final = re.compile(rb"[0-9a-f]{64}")
_PARQUET: Final = b"PAR1"


def find_forgotten(layout: Layout, manifests: Iterable[Manifest]) -> list[str]:
    """Look for forgotten ids, keys and URLs everywhere in a store.

    If versions below the floor of the published version still exist (a reader holds them, or a run
    was killed before it removed them), only the versions from the floor on are checked, because the
    next writer removes the others.

    Args:
        layout: the store.
        manifests: every version that can be read.

    Returns:
        one line for each place with forgotten items.
    """
    objects = Objects(layout)
    try:
        current = versions.read_current(layout)
        if current is None:
            return []
        forgotten = read_forgotten(Snapshot(objects, current))
    except DataError:
        return []  # reported by the check of manifests and objects
    if not forgotten:
        return []
    kept = [one for one in manifests if current.floor <= one.version <= current.version]
    refs = {ref.sha256: ref for one in (current, *kept) for ref in one.objects}
    problems = list(_in_objects(objects, refs.values(), forgotten))
    if not any(number < current.floor for number in versions.list_versions(layout)):
        problems += _beside_versions(layout, forgotten)
    return problems


def _in_objects(objects: Objects, refs: Iterable[ObjectRef], forgotten: Forgotten) -> Iterator[str]:
    for ref in refs:
        path = objects.layout.object(ref.sha256)
        try:
            if ref.name == FORGOTTEN or not _is_parquet(objects, ref):
                continue
            with objects.open_parquet(ref) as file:
                count = _count_in_table(file, forgotten)
        except (DataError, pa.ArrowInvalid):
            continue  # damage is reported by the check of objects
        if count:
            yield _problem(f"{path} ({ref.name})", count)


def _is_parquet(objects: Objects, ref: ObjectRef) -> bool:
    path = objects.unverified_path(ref)
    with os_errors(path), path.open("rb") as file:
        return file.read(len(_PARQUET)) == _PARQUET


def _count_in_table(file: pq.ParquetFile, forgotten: Forgotten) -> int:
    """Count rows and entries of the schema metadata with forgotten items."""
    schema = file.schema_arrow
    wanted = {
        field.name: forgotten.keys if field.name == "key" else forgotten.ids
        for field in schema
        if field.name in ("key", *_ID_COLUMNS) and pa.types.is_string(field.type)
    }
    metadata: dict[bytes, Any] = schema.metadata or {}
    texts = b"\n".join(value for values in metadata.items() for value in values)
    count = sum(forgotten.has_key(key.decode()) for key in _SHA256.findall(texts))
    if wanted:
        for batch in file.iter_batches(columns=list(wanted)):
            hits = [rows_among(batch[name], digests) for name, digests in wanted.items()]
            count += int(np.count_nonzero(np.logical_or.reduce(hits)))
    return count


def _beside_versions(layout: Layout, forgotten: Forgotten) -> Iterator[str]:
    """Check the files that belong to no version."""
    for path in fetched_shards(layout):
        try:
            count = int(np.count_nonzero(forgotten_rows(path, forgotten)))
        except DataError as error:
            yield error.message
            continue
        if count:
            yield _problem(str(path), count)
    if layout.stamps_file.is_file():
        try:
            count = sum(forgotten.has_key(key) for _, key in stamped_keys(layout.stamps_file))
        except DAMAGED:
            count = 0  # a damaged cache is not used, and the next crawl replaces it
        if count:
            yield _problem(str(layout.stamps_file), count)
    try:
        count = sum(is_forgotten(entry, forgotten) for entry in read_ledger(layout))
    except DataError as error:
        yield error.message
    else:
        if count:
            yield _problem(str(layout.quarantine_file), count)
    for path in sorted(layout.runs_dir.glob("*.json")):
        with os_errors(path):
            found = mentions(path.read_bytes(), forgotten)
        if found:
            yield _problem(str(path), len(found))


def _problem(where: str, count: int) -> str:
    return (
        f"{where}: contains {count} forgotten item(s); run `mmindex forget` with the same ids again"
    )
