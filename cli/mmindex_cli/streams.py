"""The standard streams, including closed streams and full disks."""

from __future__ import annotations

import os
import sys
from typing import IO, Any

import typer

# Opened in the opposite mode, as in GNU tools: reading stdin and writing stdout then fail with "Bad
# file descriptor" (exit code 74). Output to a closed stderr is discarded.
_STREAMS = (("stdin", os.O_WRONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))


def open_missing_streams() -> None:
    """Open the standard descriptors that the caller closed (``>&-``).

    Otherwise, the next files to be opened get their numbers, and the output of a library to
    descriptor 2 is written to one of them.
    """
    for number, (name, flags) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # open returns the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, _reopened(number))


def _reopened(number: int) -> IO[Any]:
    mode = "r" if number == 0 else "w"
    errors = "surrogateescape" if number == 0 else "backslashreplace"
    return os.fdopen(number, mode, encoding="utf-8", errors=errors, closefd=False)


def say(line: str) -> None:
    """Print a line on stderr. If this fails, only the exit code reports the error."""
    try:
        sys.stderr.write(f"{line}\n")  # with its newline, so that the line is written in one call
        sys.stderr.flush()
    except OSError:
        _drop(2)


def settle_stdout() -> None:
    """Flush stdout, or discard the rest if the reader is gone.

    Otherwise, the interpreter tries again when it exits, and fails with its own exit code.
    """
    try:
        sys.stdout.flush()
    except OSError:
        _drop(1)


def _drop(number: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def in_colour(text: str, colour: str, stream: IO[Any] | None) -> str:
    """Return the text in a colour if the stream is a terminal and colours are not turned off.

    See https://no-color.org.
    """
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if not (wanted and stream is not None and stream.isatty()):
        return text
    return typer.style(text, fg=colour, bold=True)
