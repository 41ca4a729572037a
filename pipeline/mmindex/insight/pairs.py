"""Read lists from users: labelled pairs, labels, and the label of each item.

CSV (quoted as in RFC 4180) and TSV (no quoting) have a header that names the columns; JSON
lines have one object per line with these keys. UTF-8, with or without a byte-order mark.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmindex.core.errors import DataError, UsageError, os_errors

_TRUE: Final = frozenset({"1", "true", "yes", "y", "match", "matched"})
_FALSE: Final = frozenset({"0", "false", "no", "n", "unmatched", "mismatch"})
_FORMS: Final = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True, slots=True)
class Pair:
    """An image (file, uri or id), a text, and whether the text describes the image."""

    image: str
    text: str
    label: bool


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """Read ``image, text, label``; a label is 1/0, true/false, yes/no or match/unmatched.

    Relative image paths are relative to the list.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the file cannot be read.
        UsageError: the extension is not .csv, .tsv or .jsonl.
        DataError: a line is invalid; the message names it.
    """
    pairs = []
    for where, row in read_table(path, ("image", "text", "label")):
        label = row["label"].strip().lower()
        if label not in _TRUE | _FALSE:
            raise DataError(
                f"{where}: the label {row['label']!r} is not recognised",
                "use 1 or 0, true or false, yes or no, match or unmatched",
            )
        pairs.append(Pair(beside(path, row["image"]), row["text"], label in _TRUE))
    if not pairs:
        raise DataError(f"{path}: contains no pairs", "columns: image, text, label")
    return tuple(pairs)


def read_truth(path: Path) -> dict[str, str]:
    """Read ``image, label``: the correct label of each image, by file, uri or id.

    Raises:
        as :func:`read_pairs`; DataError also if an image has two labels.
    """
    truth: dict[str, str] = {}
    for where, row in read_table(path, ("image", "label")):
        label = row["label"].strip()
        if truth.setdefault(row["image"], label) != label:
            raise DataError(f"{where}: {row['image']} has another label in an earlier line")
    return truth


def beside(path: Path, name: str) -> str:
    """Return a path relative to the folder of a list if there is such a file, or the name."""
    if not name or "\0" in name:
        return name
    candidate = path.parent / name
    return str(candidate) if candidate.is_file() else name


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Yield the non-empty lines of a text file with their numbers.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the file cannot be read.
        DataError: it is not UTF-8.
    """
    lines = enumerate(_text(path).split("\n"), start=1)
    return [(number, line.rstrip("\r")) for number, line in lines if line.strip()]


def _text(path: Path) -> str:
    with os_errors(path):
        data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8") from error


def read_table(
    path: Path, columns: Sequence[str | Sequence[str]], optional: Sequence[str] = ()
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the place of each row, and its cells by column.

    Args:
        path: a .csv, .tsv or .jsonl file.
        columns: the required columns; an entry can be a group of which one must exist.
        optional: further columns; JSON can have numbers in them, and null for no value.

    Raises:
        as :func:`read_pairs`.
    """
    suffix = path.suffix.lower()
    if suffix not in _FORMS:
        raise UsageError(
            f"{path}: the extension must be one of {', '.join(_FORMS)}",
            "rename the file according to its content: commas, tabs, or one JSON object per line",
        )
    text = _text(path)
    if suffix == ".jsonl":
        yield from _json_rows(path, text, columns, optional)
        return
    if suffix == ".tsv":
        lines = [line.rstrip("\r") for line in text.split("\n")]
        cells = [(n, line.split("\t")) for n, line in enumerate(lines, start=1) if line]
    else:
        cells = list(_csv_cells(path, text))
    if not cells:
        return
    (_, header), *rest = cells
    names = [name.strip().lower() for name in header]
    if missing := _missing(names, columns):
        raise DataError(
            f"{path}:1: the header lacks {', '.join(missing)}",
            f"the first line must contain the columns: {', '.join(map(_either, columns))}",
        )
    for number, row in rest:
        if len(row) != len(names):
            raise DataError(f"{path}:{number}: {len(row)} columns, but the header has {len(names)}")
        yield f"{path}:{number}", dict(zip(names, row, strict=True))


def _missing(names: Collection[str], columns: Sequence[str | Sequence[str]]) -> list[str]:
    return [_either(one) for one in columns if not set(_names(one)) & set(names)]


def _names(column: str | Sequence[str]) -> Sequence[str]:
    return (column,) if isinstance(column, str) else column


def _either(column: str | Sequence[str]) -> str:
    return " or ".join(_names(column))


def _csv_cells(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from error


def _json_rows(
    path: Path, text: str, columns: Sequence[str | Sequence[str]], optional: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON: {error}") from error
        if not isinstance(record, dict) or _missing(record, columns):
            raise DataError(f"{where}: not an object with {', '.join(map(_either, columns))}")
        names = [name for one in columns for name in _names(one) if name in record]
        row = {name: record[name] for name in names}
        if isinstance(row.get("label"), bool | int):
            row["label"] = str(int(row["label"]))
        if not all(isinstance(value, str) for value in row.values()):
            raise DataError(f"{where}: {', '.join(row)} must be text")
        yield where, row | _optional_cells(where, record, optional)


def _optional_cells(
    where: str, record: Mapping[str, object], optional: Sequence[str]
) -> dict[str, str]:
    cells = {}
    for name in optional:
        value = record.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise DataError(f"{where}: {name} must be a number or text")
        cells[name] = "" if value is None else str(value)
    return cells
