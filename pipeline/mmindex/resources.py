"""Data files that come with mmindex: corpus descriptions and the embedded model."""

from __future__ import annotations

from pathlib import Path

from mmindex.errors import InternalError

_PACKAGE = Path(__file__).resolve().parent


def data_dir() -> Path:
    """The folder that holds ``corpora/`` and ``models/``: in the wheel, or in a checkout.

    Raises:
        InternalError: the installation is incomplete.
    """
    for candidate in (_PACKAGE / "data", _PACKAGE.parents[1] / "data"):
        if (candidate / "corpora").is_dir():
            return candidate
    raise InternalError(f"mmindex's data files are missing beside {_PACKAGE}")


def checkout_dir() -> Path | None:
    """The source checkout that this package runs from, or None when it is installed."""
    root = _PACKAGE.parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "data").is_dir() else None
