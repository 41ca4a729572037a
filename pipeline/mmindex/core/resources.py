"""Paths of the data files of mmindex (corpora, the embedded models) and of user files."""

from __future__ import annotations

import os
from pathlib import Path

from mmindex.core.errors import InternalError

_PACKAGE = Path(__file__).resolve().parents[1]


def data_dir() -> Path:
    """Return the folder with ``corpora/`` and ``models/``, in the wheel or in a checkout.

    Raises:
        InternalError: the installation is incomplete.
    """
    for candidate in (_PACKAGE / "data", _PACKAGE.parents[1] / "data"):
        if (candidate / "corpora").is_dir():
            return candidate
    raise InternalError(f"the data files of mmindex are missing next to {_PACKAGE}")


def checkout_dir() -> Path | None:
    """Return the source checkout that this package runs from, or None if it is installed."""
    root = _PACKAGE.parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "data").is_dir() else None


def user_path(text: str) -> Path:
    """Return a path from the user with ``~`` replaced by the home folder.

    A ``~name`` of an unknown user stays unchanged (pathlib raises RuntimeError).
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111


def is_file(text: str) -> bool:
    """Return whether a text, which can be a whole sentence, is the path of an existing file."""
    try:
        return user_path(text).is_file()
    except (OSError, ValueError):  # a name that is too long, or a null character
        return False
