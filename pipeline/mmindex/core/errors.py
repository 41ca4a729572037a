"""Errors that end a run: one class per exit code, with a hint about the remedy."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar


class MmindexError(Exception):
    """Base class of all expected failures.

    Args:
        message: what went wrong, with the invalid value and the limit, on one line.
        hint: the command or step that helps, on one line, or empty.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # tracebacks show notes

    def __str__(self) -> str:
        return self.message


class UsageError(MmindexError):
    """An argument or a setting is invalid."""

    exit_code = 2


class DataError(MmindexError):
    """The input is damaged, inconsistent, or too much of it was quarantined."""

    exit_code = 65


class NoVectorError(DataError):
    """The model returns no usable vector for a query; the store is intact."""


class NoInputError(MmindexError):
    """A required file, store, version or stage result does not exist."""

    exit_code = 66


class NetworkError(MmindexError):
    """The network or a required service cannot be reached."""

    exit_code = 69


class MissingPackageError(MmindexError):
    """An optional package is not installed; the hint names the extra."""

    exit_code = 69


class UnsupportedSystemError(MmindexError):
    """The operating system lacks a feature that the command requires."""

    exit_code = 69


class InternalError(MmindexError):
    """A bug in mmindex: an invariant does not hold."""

    exit_code = 70


class CannotCreateError(MmindexError):
    """An output file or folder cannot be created."""

    exit_code = 73


class StorageError(MmindexError):
    """Reading or writing failed: an I/O error or a full disk."""

    exit_code = 74


class BusyError(MmindexError):
    """Another process holds the store, or a service asks to retry later."""

    exit_code = 75


class PermissionDeniedError(MmindexError):
    """The operating system refuses access."""

    exit_code = 77


class ModelMismatchError(MmindexError):
    """The model or on-disk format differs from that of the store."""

    exit_code = 78


class Terminated(BaseException):
    """SIGTERM arrived: unwind the stack, so that files, workers and the lock are released."""

    exit_code: ClassVar[int] = 128 + signal.SIGTERM


_ERRNO = re.compile(r"\[Errno -?\d+\] ?")
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_PERMISSION = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR})


def reason_of(error: BaseException) -> str:
    """Return the reason of a failure as text only, such as ``No such file or directory``."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):  # urllib wraps the cause
        return reason_of(inner)
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(_ERRNO.sub("", text).split())[:300] or type(error).__name__


def from_os_error(error: OSError, path: Path | str) -> MmindexError:
    """Convert an OSError about ``path`` to an error with an exit code."""
    text = f"{path}: {reason_of(error)}"
    if error.errno in _NO_SPACE:
        return StorageError(
            text, "free some disk space there, then run the command again: finished work is kept"
        )
    if error.errno in _NO_PERMISSION:
        return PermissionDeniedError(text, "check the owner and mode, or choose another `store`")
    if error.errno in _NOT_THERE:
        return NoInputError(text)
    return StorageError(text)


@contextmanager
def os_errors(path: Path | str) -> Iterator[None]:
    """Convert OSErrors in the block to the matching :class:`MmindexError` about ``path``."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, path) from error


@contextmanager
def duckdb_interrupts() -> Iterator[None]:
    """Raise the exception of a signal, which DuckDB replaces with "Query interrupted".

    Raises:
        Terminated: on SIGTERM.
        KeyboardInterrupt: on SIGINT.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error) != "Query interrupted":
            raise
        raise (Terminated if terminated() else KeyboardInterrupt) from error


def terminated() -> bool:
    """Return whether SIGTERM has arrived: its handler then ignores further ones."""
    return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a command that fails with ``error``."""
    if isinstance(error, MmindexError | Terminated):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, OSError):
        return from_os_error(error, "").exit_code
    return InternalError.exit_code


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` if a known word is similar, otherwise an empty text."""
    import difflib  # errors are rare, and the import would slow down `mmindex --help`

    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def first_lines(error: BaseException, count: int = 1) -> str:
    """Return the first lines of a library error as one line of limited length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:count])[:300] or type(error).__name__
