"""Items excluded from the index, with the reasons; nothing that a source lists disappears.

Each version carries its entries as a table (object ``quarantine``). ``quarantine.jsonl`` has the
newest run's entries, even if that run was refused because there were too many. It is replaced
atomically as a whole, so that no line is incomplete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import pyarrow as pa

from mmindex.core.errors import DataError, os_errors
from mmindex.core.records import QuarantineEntry, Reason
from mmindex.store.layout import Layout
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.publish import StagedFile

_COLUMNS = ("id", "uri", "source", "stage", "reason", "detail", "key")
_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in _COLUMNS])


def write_entries(objects: Objects, name: str, entries: Sequence[QuarantineEntry]) -> ObjectRef:
    """Write entries as an object of a version."""
    columns = {name: [getattr(entry, name) for entry in entries] for name in _COLUMNS}
    return objects.write_table(name, _SCHEMA, [pa.table(columns, schema=_SCHEMA)])


def read_entries(objects: Objects, ref: ObjectRef | None) -> list[QuarantineEntry]:
    """Read a version's entries; none if it has no such object."""
    if ref is None:
        return []
    rows = objects.read_table(ref).to_pylist()
    return [QuarantineEntry(**{**row, "reason": Reason(row["reason"])}) for row in rows]


def count_reasons(entries: Iterable[QuarantineEntry]) -> dict[str, int]:
    """Count the excluded images for each reason, by name."""
    images = Counter(str(entry.reason) for entry in entries if not entry.is_caption)
    return dict(sorted(images.items()))


def count_kept_out(entries: Sequence[QuarantineEntry]) -> tuple[int, int]:
    """Count the excluded images and captions."""
    captions = sum(entry.is_caption for entry in entries)
    return len(entries) - captions, captions


def write_ledger(layout: Layout, entries: Iterable[QuarantineEntry]) -> None:
    """Replace the ledger."""
    with StagedFile(layout) as staged:
        for entry in entries:
            staged.write(msgspec.json.encode(entry) + b"\n")
        staged.publish(layout.quarantine_file)


def read_ledger(layout: Layout) -> Iterator[QuarantineEntry]:
    """Stream the ledger; empty if there is none.

    Raises:
        DataError: a line is damaged; the message names it.
    """
    if not layout.quarantine_file.exists():
        return
    with os_errors(layout.quarantine_file), layout.quarantine_file.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield msgspec.json.decode(line, type=QuarantineEntry)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise DataError(f"{layout.quarantine_file}:{number}: {error}") from error
