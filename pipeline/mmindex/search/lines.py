"""The lines of a file of queries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

MAX_LINE: Final = 64 << 10
"""Bytes of a line: ten times what any model uses of a text; 256 lines are 16 MiB."""
SHOWN: Final = 200
"""Characters of a text in messages."""


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; longer lines are cut after ``MAX_LINE`` + 1 bytes."""
    while line := file.readline(MAX_LINE + 1):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE)


def text_of(line: str | bytes) -> tuple[str, str | None]:
    """Return the text of a line, and the error if it is invalid."""
    if isinstance(line, str):
        return line, None if line.strip() else "the query is empty"
    content = line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
    if len(content) > MAX_LINE:
        start = content[:SHOWN].decode("utf-8", "replace")
        return f"{start}…", f"longer than {MAX_LINE:,} bytes"
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return content.decode("utf-8", "backslashreplace"), f"not valid UTF-8: {error.reason}"
    return text_of(text)
