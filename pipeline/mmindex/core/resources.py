"""Files: those that come with mmindex (corpora, the embedded model), and those that users name."""

from __future__ import annotations

import os
from pathlib import Path

from mmindex.core.errors import InternalError

_PACKAGE = Path(__file__).resolve().parents[1]


def data_dir() -> Path:
    """The folder that holds ``corpora/`` and ``models/``: in the wheel, or in a checkout.

    Raises:
        InternalError: the installation is incomplete.
    """
    for candidate in (_PACKAGE / "data", _PACKAGE.parents[1] / "data"):
        if (candidate / "corpora").is_dir():
            return candidate
    raise InternalError(f"the data files of mmindex are missing next to {_PACKAGE}")


def checkout_dir() -> Path | None:
    """The source checkout that this package runs from, or None when it is installed."""
    root = _PACKAGE.parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "data").is_dir() else None


def user_path(text: str) -> Path:
    """The path that a user wrote, with ``~`` as their home folder.

    A ``~name`` that is nobody's home stands for itself (pathlib's own way raises RuntimeError).
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111


def is_file(text: str) -> bool:
    """Whether some text, perhaps a whole sentence, names a file that is there."""
    try:
        return user_path(text).is_file()
    except (OSError, ValueError):  # longer than a name can be; a null character
        return False
