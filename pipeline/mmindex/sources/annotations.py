"""Read annotation files, which can be truncated, hostile or unusual."""

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
# Escapes in the order in which a JSON parser reads them: a pair of surrogates, a lone surrogate,
# anything else. Backslashes occur only inside strings, so this needs no tokenizer.
_ESCAPE: Final = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
# Numbers that can exceed a double; the values of unknown fields are skipped.
_HUGE_NUMBER: Final = re.compile(rb"[0-9.][eE]\+?[0-9]{3}|[0-9]{300}")


def read_bytes(path: Path) -> bytes:
    """Read a whole annotation file.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the file cannot be read.
    """
    with os_errors(path):
        return path.read_bytes()


def decode_json(data: bytes, kind: type[T], where: str) -> tuple[T, int]:
    """Decode JSON into ``kind``, strictly.

    A lone surrogate cannot be stored as UTF-8: it becomes U+FFFD and is counted.

    Args:
        data: the JSON text in UTF-8, with or without a byte-order mark.
        kind: a type that msgspec supports; unknown fields are skipped.
        where: the file's name for messages.

    Returns:
        the value, and the number of lone surrogates that were replaced.

    Raises:
        DataError: the text is truncated, malformed, nested too deeply, not UTF-8, of another
            structure, or contains NaN, Infinity or numbers that exceed a double; the message names
            the byte or the field.
    """
    if data.startswith(_BOM):
        data = b"   " + data[len(_BOM) :]  # so that positions in messages are right
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
    """Return a JSON value for a metadata column: objects, and lists of objects, as JSON text."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list) and all(
        one is None or isinstance(one, str | bool | int | float) for one in value
    ):
        return value
    return msgspec.json.encode(value).decode("utf-8")


def notes(counts: Mapping[NoteKind, int]) -> Iterator[Note]:
    """Return the counts above zero as notes for the summary of a source."""
    return (Note(kind, count) for kind, count in counts.items() if count)


def find_file(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of ``names`` that is a file in ``folder`` or in a direct subfolder."""
    candidates = (
        candidate
        for name in names
        for candidate in (folder / name, *sorted(folder.glob(f"*/{name}")))
    )
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_text(path: Path) -> str:
    """Read a text file, without a byte-order mark.

    Raises:
        DataError: it is not UTF-8; the message names the line.
        MmindexError: it cannot be read.
    """
    return as_text(read_bytes(path), str(path))


def as_text(data: bytes, where: str) -> str:
    """Decode the bytes of a text file: UTF-8, or UTF-16 with a byte-order mark.

    Raises:
        DataError: the bytes are neither; the message names the line.
    """
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}:{line}: not UTF-8", "save the file as UTF-8") from error


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the non-empty lines with their numbers; only LF and CRLF end a line."""
    for number, line in enumerate(text.split("\n"), start=1):
        if stripped := line.removesuffix("\r"):
            yield number, stripped


def stem(name: str) -> str:
    """Return a file name without its extension, otherwise unchanged."""
    return os.path.splitext(name)[0]  # noqa: PTH122  # Path would drop "./"
