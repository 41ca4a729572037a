"""mmindex: offline batch indexing and search over image corpora.

``mmindex.build`` creates a store from images and captions, and ``mmindex.open`` opens one for
search. Large libraries are imported when they are first used.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # true for type checkers; importing `typing` would take most of the time
if TYPE_CHECKING:
    from mmindex.api import (
        Hit,
        Hits,
        Index,
        Recommended,
        adapt,
        build,
        open,
    )  # mmindex.open, like gzip.open
    from mmindex.core.errors import (
        BusyError,
        CannotCreateError,
        DataError,
        InternalError,
        MissingPackageError,
        MmindexError,
        ModelMismatchError,
        NetworkError,
        NoInputError,
        PermissionDeniedError,
        StorageError,
        UsageError,
    )

__version__ = "0.1.0"
__all__ = [
    "BusyError",
    "CannotCreateError",
    "DataError",
    "Hit",
    "Hits",
    "Index",
    "InternalError",
    "MissingPackageError",
    "MmindexError",
    "ModelMismatchError",
    "NetworkError",
    "NoInputError",
    "PermissionDeniedError",
    "Recommended",
    "StorageError",
    "UsageError",
    "__version__",
    "adapt",
    "build",
    "open",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'mmindex' has no attribute {name!r}")
    home = "mmindex.core.errors" if name.endswith("Error") else "mmindex.api"
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
