"""Arguments from programs: a wrong type is a TypeError at the call, a bad value a UsageError."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from mmindex.core.errors import UsageError
from mmindex.core.resources import user_path

MAX_COUNT: Final = 2**31 - 1  # any corpus fits; larger numbers may exceed 64 bits


def expect(value: Any, kind: type, name: str, wanted: str) -> Any:
    """The value, which must be a ``kind``; ``wanted`` says so in words."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {wanted}, not {shown(value)}")
    return value


def expect_several(value: object, name: str) -> None:
    """Check that these are several things; a lone text would be taken for its characters."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected a sequence, not {shown(value)}")


def as_path(path: object, name: str) -> Path:
    """A path, with ``~`` as the user's home."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name}: expected a str or Path, not {shown(path)}")
    text = os.fspath(path)
    expect(text, str, name, "a path of type str")
    if not text or "\0" in str(text):
        raise UsageError(f"{name}: {text!r} is not a path")
    return user_path(str(text))


def as_count(value: int, name: str) -> int:
    """A number of things, at least 1; NumPy's integers are fine."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an int, not {shown(value)}")
    count = operator.index(value)
    if not 1 <= count <= MAX_COUNT:
        raise UsageError(f"`{name}` is {count}; it must be from 1 to {MAX_COUNT:,}")
    return count


def shown(value: object) -> str:
    """A value in a message: its type and the start of what it is."""
    return f"{type(value).__name__} {repr(value)[:60]}"
