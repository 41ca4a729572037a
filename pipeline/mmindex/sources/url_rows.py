"""Read a list of image URLs row by row: csv, tsv, txt, jsonl or parquet."""

from __future__ import annotations

import codecs
import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mmindex.core.errors import DataError, NoInputError, UsageError, os_errors
from mmindex.core.records import MetadataValue
from mmindex.fetch.ledger import ListRow
from mmindex.sources.annotations import decode_json, json_column
from mmindex.sources.captions import caption_fields, caption_texts

EXTENSIONS: Final = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet")
# Names of this field in lists, not case-sensitive; the first existing one is used.
URL_COLUMNS: Final = ("url", "image_url", "img_url")
_NAME: Final = ("id", "image_id", "key")
_SPLIT: Final = ("split",)
_MAX_FIELD_CHARS: Final = 16 << 20
_BATCH_ROWS: Final = 4_096


def read_rows(path: Path) -> Iterator[ListRow]:
    """Stream a URL list.

    - ``.csv``: a header line, then RFC 4180 (quotes, commas and line breaks inside quotes), or the
      same with semicolons;
    - ``.tsv``: a header line, then IANA's text/tab-separated-values, without quoting;
    - ``.txt``: one URL per line;
    - ``.jsonl``: one object per line;
    - ``.parquet``: its columns.

    All text is UTF-8, with or without a byte-order mark. A column ``url`` is required; ``caption``
    (a text, or a list of texts), ``id`` and ``split`` are optional; others become metadata.

    Raises:
        UsageError: the extension is not one of these.
        NoInputError, PermissionDeniedError, StorageError: it cannot be read.
        DataError: it is damaged, or has no column of URLs; the message names the line.
    """
    extension = path.suffix.lower()
    if not path.is_file():
        raise NoInputError(f"{path}: no such file", "check the path of `source=urls:FILE`")
    if extension not in EXTENSIONS:
        raise UsageError(
            f"{path}: a list of URLs must end in {', '.join(EXTENSIONS)}, not {extension!r}"
        )
    match extension:
        case ".csv":
            return _rows(path, _read_csv(path, "excel"))
        case ".tsv":
            return _rows(path, _read_csv(path, "tsv"))
        case ".txt":
            return _rows(path, _read_addresses(path))
        case ".parquet":
            return _rows(path, _read_parquet(path))
        case _:
            return _rows(path, _read_jsonl(path))


class _Tsv(csv.Dialect):
    delimiter = "\t"
    quoting = csv.QUOTE_NONE
    lineterminator = "\n"
    strict = True


class _Csv(csv.excel):
    strict = True


class _Semicolons(_Csv):
    delimiter = ";"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers and line ends.

    Raises:
        DataError: a line is not UTF-8.
    """
    with os_errors(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            data = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            try:
                yield number, data.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: not UTF-8 at byte {error.start}", "save the list as UTF-8"
                ) from error


def _read_csv(path: Path, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    _, first = next(_lines(path), (0, ""))
    excel = _Semicolons if ";" in first and "," not in first else _Csv
    dialect = _Tsv if kind == "tsv" else excel
    reader = csv.reader((line for _, line in _lines(path)), dialect)
    try:
        header = next(reader, None)
        if not header:
            raise DataError(f"{path}: empty; it needs a header line with a column `url`")
        if len(set(header)) != len(header):
            raise DataError(f"{path}:1: a column name occurs twice in the header")
        for fields in reader:
            if not fields:
                continue  # a blank line
            if len(fields) != len(header):
                raise DataError(
                    f"{path}:{reader.line_num}: {len(fields)} fields, but the header has "
                    f"{len(header)}"
                )
            yield reader.line_num, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from error


def _read_addresses(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path):
        if address := line.strip():
            yield number, {"url": address}


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path):
        if line.strip():
            row, _ = decode_json(line.encode("utf-8"), dict[str, Any], f"{path}:{number}")
            yield number, row


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with os_errors(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pa.ArrowException as error:
        raise DataError(f"{path}: damaged at row {number}: {error}") from error


def _rows(path: Path, read: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[ListRow]:
    for number, row in read:
        names = {name.lower(): name for name in reversed(row)}
        url = _pick(row, names, URL_COLUMNS)
        if url is None:
            raise DataError(
                f"{path}:{number}: no column `url` (columns: {', '.join(list(row)[:20])})",
                "rename the column of URLs to `url`",
            )
        name, split = (_pick(row, names, known) for known in (_NAME, _SPLIT))
        captions = caption_fields(row)
        known = {field for field in (url, name, split, *captions) if field is not None}
        yield ListRow(
            url=_text(row[url]).strip(),
            captions=tuple(
                text
                for field in captions
                for text in caption_texts(row[field], f"{path}:{number}: column {field!r}")
            ),
            name=row_id(row[name]) if name else "",
            split=(_text(row[split]) if split else "") or "all",
            metadata={key: _column(value) for key, value in row.items() if key not in known},
        )


def _pick(
    row: Mapping[str, Any], names: Mapping[str, str], candidates: tuple[str, ...]
) -> str | None:
    return next((names[name] for name in candidates if names.get(name) in row), None)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def row_id(value: Any) -> str:
    """Return the value of an id column as an id; empty if it is null, NaN or blank."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip() and str(value)


def _column(value: Any) -> MetadataValue:
    """Return a metadata value; bytes and times as text."""
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, str | bool | int | float | list | dict):
        return json_column(value)
    return str(value)
