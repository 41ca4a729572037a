"""Reading annotation files that may be cut off, hostile or merely odd."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from mmindex.core.errors import DataError, os_errors
from mmindex.core.records import MetadataValue, Note, NoteKind

T = TypeVar("T")

_BOM: Final = b"\xef\xbb\xbf"
# Escapes in the order in which a JSON parser meets them: a pair of surrogates, half of a pair,
# anything else. Backslashes stand inside strings only, so this needs no tokenizer.
_ESCAPE: Final = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
# Numbers that may be beyond a double; unknown fields are skipped without looking at their value.
_HUGE_NUMBER: Final = re.compile(rb"[0-9.][eE]\+?[0-9]{3}|[0-9]{300}")


def read_bytes(path: Path) -> bytes:
    """Read an annotation file whole.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the file cannot be read.
    """
    with os_errors(path):
        return path.read_bytes()


def decode_json(data: bytes, kind: type[T], where: str) -> tuple[T, int]:
    """Decode JSON into ``kind``, strictly.

    Half of a surrogate pair cannot be stored as UTF-8: it becomes U+FFFD and is counted.

    Args:
        data: the JSON text in UTF-8, with or without a byte-order mark.
        kind: a msgspec-supported type; fields that it does not name are skipped.
        where: the file's name for messages.

    Returns:
        the value, and how many halves of surrogate pairs were replaced.

    Raises:
        DataError: cut off, malformed, NaN, Infinity, numbers beyond a double, nested too deep,
            no UTF-8, or of another shape; the message names the byte or the place.
    """
    if data.startswith(_BOM):
        data = b"   " + data[len(_BOM) :]  # as many bytes, so that messages name the file's own
    replaced = 0
    if _SURROGATE.search(data):
        data, replaced = _replace_lone_surrogates(data)
    try:
        if _HUGE_NUMBER.search(data):
            msgspec.json.decode(data)
        return msgspec.json.decode(data, type=kind), replaced
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 at byte {_bad_byte(data)}") from error
    except RecursionError as error:
        raise DataError(f"{where}: nested too deeply for an annotation file") from error
    except msgspec.DecodeError as error:
        if "truncated" in str(error):
            raise DataError(
                f"{where}: truncated: the JSON ends too early, at byte {len(data)}",
                "fetch or copy the file again",
            ) from error
        raise DataError(f"{where}: {error}") from error


def _bad_byte(data: bytes) -> int:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return len(data)


def _replace_lone_surrogates(data: bytes) -> tuple[bytes, int]:
    replaced = 0

    def clean(match: re.Match[bytes]) -> bytes:
        nonlocal replaced
        if match["lone"] is None:
            return match[0]
        replaced += 1
        return rb"\ufffd"

    return _ESCAPE.sub(clean, data), replaced


def json_column(value: Any) -> MetadataValue:
    """A JSON value as a metadata column holds it: objects, and lists of any, as their JSON text."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list) and all(
        one is None or isinstance(one, str | bool | int | float) for one in value
    ):
        return value
    return msgspec.json.encode(value).decode("utf-8")


def notes(counts: Mapping[NoteKind, int]) -> Iterator[Note]:
    """The counts that are not zero, as notes of a source's summary."""
    return (Note(kind, count) for kind, count in counts.items() if count)


def find_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of ``names`` that is a file in ``folder`` or in a folder just below it."""
    candidates = (
        candidate
        for name in names
        for candidate in (folder / name, *sorted(folder.glob(f"*/{name}")))
    )
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_text(path: Path) -> str:
    """A text file's content, without a byte-order mark.

    Raises:
        DataError: it is not UTF-8; the message names the line.
        MmindexError: it cannot be read.
    """
    return as_text(read_bytes(path), str(path))


def as_text(data: bytes, where: str) -> str:
    """A text file's bytes as text, without a byte-order mark: UTF-8, or UTF-16 with its mark.

    Raises:
        DataError: they are neither; the message names the line.
    """
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}:{line}: not UTF-8", "save the file as UTF-8") from error


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not empty; only LF and CRLF end a line."""
    for number, line in enumerate(text.split("\n"), start=1):
        if stripped := line.removesuffix("\r"):
            yield number, stripped


def stem(name: str) -> str:
    """A file's name without its extension; names from outside stay as they are otherwise."""
    return os.path.splitext(name)[0]  # noqa: PTH122  # Path would drop "./"
