"""Relevance judgements in TREC form: ``query_id 0 doc_id relevance``, one pair per line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.core.errors import DataError, os_errors
from mmindex.store.snapshot import Snapshot

MAX_UNKNOWN: Final = 0.05
"""The largest share of lines with an id that is not in the version."""

# Ids are names of files or addresses; a longer line is not a line of judgements.
_MAX_LINE: Final = 16_384
_RELEVANCE: Final = re.compile(rb"[+-]?[0-9]{1,9}")
_FIELDS: Final = 4
_HINT: Final = "each line is `query_id 0 doc_id relevance`; see docs/evaluation.md"

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Judgements:
    """The judged pairs of one direction, by query and then by row.

    Attributes:
        queries: int64 (pairs,), rows of ``captions`` or ``images``.
        found: int64 (pairs,), rows of the other table.
        relevance: int64 (pairs,), above 0 for right answers.
    """

    queries: Int64
    found: Int64
    relevance: Int64


@dataclass(frozen=True, slots=True)
class Qrels:
    """The content of a file of judgements.

    Attributes:
        lines: the number of lines with a judgement.
        unknown: how many of them have an id that is not in the version.
        duplicates: how many repeat an earlier line.
        text_to_image, image_to_text: the pairs of each direction.
    """

    lines: int
    unknown: int
    duplicates: int
    text_to_image: Judgements
    image_to_text: Judgements


@dataclass(frozen=True, slots=True)
class _Raw:
    """The fields of all lines: ids as Arrow binary, numbers of lines and relevances as int64."""

    queries: Any
    found: Any
    relevance: Int64
    numbers: Int64


def read_qrels(snapshot: Snapshot, path: Path) -> Qrels:
    """Read the judgements about a version.

    Memory: the file's ids and the ids of the version, about 250 bytes per line.

    Raises:
        NoInputError: there is no such file.
        DataError: a line is broken, a pair has two relevances, an id has two meanings, the file is
            empty, or too many ids are not in the version.
    """
    raw = _read(path)
    images = snapshot.table("images", ["image_id"])["image_id"]
    captions = snapshot.table("captions", ["caption_id"])["caption_id"]
    as_text, as_image = _rows(raw.queries, captions), _rows(raw.queries, images)
    to_image, to_text = _rows(raw.found, images), _rows(raw.found, captions)
    forth = (as_text >= 0) & (to_image >= 0)
    back = (as_image >= 0) & (to_text >= 0)
    if (both := np.flatnonzero(forth & back)).size:
        raise DataError(
            f"{path}, line {raw.numbers[both[0]]}: both ids name an image and also a caption, so"
            " the direction is not known",
            "give images and captions different ids",
        )
    unknown = np.flatnonzero(~(forth | back))
    _require_known(path, raw, unknown)
    there, repeated = _judgements(path, raw, forth, (as_text, to_image))
    here, repeated_too = _judgements(path, raw, back, (as_image, to_text))
    return Qrels(len(raw.numbers), len(unknown), repeated + repeated_too, there, here)


def _read(path: Path) -> _Raw:
    queries: list[bytes] = []
    found: list[bytes] = []
    relevance: list[int] = []
    numbers: list[int] = []
    for number, line in _lines(path):
        query, doc, value = _fields(path, number, line)
        queries.append(query)
        found.append(doc)
        relevance.append(value)
        numbers.append(number)
    if not numbers:
        raise DataError(f"{path}: no judgements in this file", _HINT)
    return _Raw(
        pa.array(queries, pa.large_binary()),
        pa.array(found, pa.large_binary()),
        np.array(relevance, dtype=np.int64),
        np.array(numbers, dtype=np.int64),
    )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1."""
    with os_errors(path), path.open("rb") as file:
        number = 0
        while line := file.readline(_MAX_LINE + 1):
            number += 1
            if len(line) > _MAX_LINE:
                raise DataError(
                    f"{path}, line {number}: longer than {_MAX_LINE:,} bytes, the limit", _HINT
                )
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield number, line.rstrip(b"\r\n")


def _fields(path: Path, number: int, line: bytes) -> tuple[bytes, bytes, int]:
    """Split a line at tabs if it has any, and else at spaces: ids can contain spaces."""
    parts = line.split(b"\t") if b"\t" in line else line.split()
    if len(parts) != _FIELDS:
        raise DataError(f"{path}, line {number}: {len(parts)} fields instead of {_FIELDS}", _HINT)
    if not _RELEVANCE.fullmatch(parts[3]):
        shown = parts[3][:40].decode("utf-8", "backslashreplace")
        raise DataError(
            f"{path}, line {number}: relevance {shown!r} is not an integer of up to 9 digits", _HINT
        )
    return parts[0], parts[2], int(parts[3])


def _rows(ids: Any, known: Any) -> Int64:
    """Return the row of each id, -1 if it is not in the table."""
    # Bytes instead of strings: ids can contain lone surrogates, which are not valid UTF-8.
    places = pc.index_in(ids, value_set=known.cast(pa.binary()).cast(pa.large_binary()))
    rows: Int64 = places.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return rows


def _require_known(path: Path, raw: _Raw, unknown: Int64) -> None:
    lines = len(raw.numbers)
    if len(unknown) <= MAX_UNKNOWN * lines:
        return
    first = int(unknown[0])
    pair = " ".join(
        column[first].as_py().decode("utf-8", "backslashreplace")
        for column in (raw.queries, raw.found)
    )
    raise DataError(
        f"{path}: {len(unknown):,} of {lines:,} lines do not join a caption and an image of this"
        f" version (first: line {raw.numbers[first]}, {pair[:200]}); the limit is"
        f" {MAX_UNKNOWN:.0%}",
        "use the ids of `mmindex query --format json` and `mmindex export`, and remove other lines",
    )


def _judgements(
    path: Path, raw: _Raw, mine: NDArray[np.bool_], rows: tuple[Int64, Int64]
) -> tuple[Judgements, int]:
    """Return the pairs of one direction without repetitions, and the number of repetitions."""
    lines = np.flatnonzero(mine)
    queries, found = (side[lines] for side in rows)
    order = np.lexsort((found, queries))
    lines, queries, found = lines[order], queries[order], found[order]
    relevance = raw.relevance[lines]
    again = np.zeros(len(lines), dtype=np.bool_)
    again[1:] = (queries[1:] == queries[:-1]) & (found[1:] == found[:-1])
    differ = np.flatnonzero(again[1:] & (relevance[1:] != relevance[:-1]))
    if differ.size:
        at = int(differ[0])
        first, second = raw.numbers[lines[at]], raw.numbers[lines[at + 1]]
        raise DataError(
            f"{path}, lines {first} and {second}: the same pair has relevance {relevance[at]}"
            f" and {relevance[at + 1]}",
            "remove one of the two lines",
        )
    kept = ~again
    return Judgements(queries[kept], found[kept], relevance[kept]), int(again.sum())
