"""The built-in kinds of source. Each module is a kind and defines ``KIND``.

The name of the module is the name of the kind, with ``_`` for ``-``. A module is imported only when
its kind is used or listed.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable


def built_in() -> tuple[str, ...]:
    """Return the sorted names of the built-in kinds without importing them."""
    names = (module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(names))


def kind_of(spec: str) -> str:
    """Return the kind in a source spec, even if it does not exist."""
    return spec.partition(":")[0].rpartition("=")[2]


def images_of(specs: Iterable[str]) -> Iterable[str]:
    """Return the specs of sources whose images are encoded: all but files of vectors."""
    return (spec for spec in specs if kind_of(spec) != "embeddings")


def only_scenes(specs: Iterable[str]) -> bool:
    """Return whether there are source specs and all of them are drawn scenes."""
    return {kind_of(spec) for spec in specs} == {"scenes"}
