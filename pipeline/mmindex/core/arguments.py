"""Check arguments of the Python API: TypeError for a wrong type, UsageError for a bad value."""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from mmindex.core.errors import UsageError
from mmindex.core.resources import user_path

MAX_COUNT: Final = 2**31 - 1  # any corpus fits; larger numbers may exceed 64 bits


def expect(value: Any, kind: type, name: str, wanted: str) -> Any:
    """Return the value if it is a ``kind``; ``wanted`` names the type in the error."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {wanted}, not {shown(value)}")
    return value


def expect_several(value: object, name: str) -> None:
    """Check that this is a sequence and not a text, which is a sequence of characters."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected a sequence, not {shown(value)}")


def as_path(path: object, name: str) -> Path:
    """Return a path with ``~`` replaced by the home folder."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name}: expected a str or Path, not {shown(path)}")
    text = os.fspath(path)
    expect(text, str, name, "a path of type str")
    if not text or "\0" in str(text):
        raise UsageError(f"{name}: {text!r} is not a path")
    return user_path(str(text))


def as_count(value: int, name: str) -> int:
    """Return a count of at least 1; NumPy integers are allowed."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an int, not {shown(value)}")
    count = operator.index(value)
    if not 1 <= count <= MAX_COUNT:
        raise UsageError(f"`{name}` is {count}; it must be from 1 to {MAX_COUNT:,}")
    return count


def as_number(value: object, name: str) -> float:
    """Return a number as a float; NumPy numbers are allowed."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number, not {shown(value)}")
    return float(value)


def shown(value: object) -> str:
    """Describe a value in a message: its type and the start of its representation."""
    return f"{type(value).__name__} {repr(value)[:60]}"
