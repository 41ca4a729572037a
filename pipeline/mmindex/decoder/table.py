"""Write texts about all images of a store to a Parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from mmindex.core.durable import file_aside
from mmindex.core.errors import UsageError, os_errors
from mmindex.core.progress import counter
from mmindex.decoder.writer import Written

_ROWS: Final = 4_096  # rows in memory


@dataclass(frozen=True, slots=True)
class TableReport:
    """The result of writing a table.

    Attributes:
        path: the file.
        images: number of rows.
        failed: images that cannot be used; their text is null.
    """

    path: Path
    images: int
    failed: int


def write_texts(
    path: Path, column: str, texts: Iterable[Written], facts: Mapping[str, str], total: int
) -> TableReport:
    """Write the columns ``image_id``, ``uri``, ``column``, ``score`` and ``error``.

    The file appears when it is complete.

    Args:
        facts: model, fingerprint and prompt, for the metadata of the file.
        total: the number of images, for the progress bar.

    Raises:
        UsageError: the file exists.
        MmindexError: it cannot be written.
    """
    if path.exists():
        raise UsageError(f"{path} already exists", "remove it, or use another `out`")
    names = {"image_id": pa.string(), "uri": pa.string(), column: pa.string()}
    fields = [*names.items(), ("score", pa.float32()), ("error", pa.string())]
    schema = pa.schema(fields, metadata={f"mmindex.{key}": text for key, text in facts.items()})
    images = failed = 0
    with os_errors(path), file_aside(path) as aside, pq.ParquetWriter(aside, schema) as writer:
        for rows in _parts(texts, total):
            columns = zip(*map(_row, rows), strict=True)
            arrays = [
                pa.array(list(one), field.type) for one, field in zip(columns, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            images += len(rows)
            failed += sum(row.error is not None for row in rows)
    return TableReport(path, images, failed)


def _parts(texts: Iterable[Written], total: int) -> Iterator[list[Written]]:
    found = iter(texts)
    with counter(total=total, label="write", unit="image") as progress:
        while part := list(islice(found, _ROWS)):
            progress.update(len(part))
            yield part


def _row(one: Written) -> tuple[str | float | None, ...]:
    return _valid(one.id), _valid(one.uri), one.text, one.score, _valid(one.error)


def _valid(text: str | None) -> str | None:
    """Return a text as valid UTF-8, with U+FFFD for lone surrogates."""
    return (
        None if text is None else text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    )
