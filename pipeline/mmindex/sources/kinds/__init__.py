"""The built-in kinds of source. A module here is a kind: it defines ``KIND``, its description.

The module's name is the kind's, with ``_`` for ``-``. A module is imported only when its kind is
used or listed.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable


def built_in() -> tuple[str, ...]:
    """The names of the built-in kinds, sorted; imports none of them."""
    names = (module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(names))


def kind_of(spec: str) -> str:
    """The kind that a source spec names, whether or not there is one."""
    return spec.partition(":")[0].rpartition("=")[2]


def only_scenes(specs: Iterable[str]) -> bool:
    """Whether all of some source specs (and there are any) are drawn scenes."""
    return {kind_of(spec) for spec in specs} == {"scenes"}
