"""The registry of source kinds: built-in kinds and kinds of installed packages.

The module of a kind is imported when the kind is used or listed. Entry points are read once per
process, when the first source spec is parsed.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from mmindex.core.errors import InternalError, UsageError
from mmindex.sources import kinds
from mmindex.sources.base import Kind

GROUP: Final = "mmindex.sources"


def names() -> tuple[str, ...]:
    """Return the names of all kinds: built-in kinds, then those of other packages."""
    own = kinds.built_in()
    return own + tuple(sorted(_added().keys() - set(own)))


def listed() -> tuple[Kind, ...]:
    """Return the definitions of all kinds, in the order of :func:`names`.

    Raises:
        UsageError: as :func:`find`.
    """
    return tuple(find(name) for name in names())


def find(name: str) -> Kind:
    """Return the definition of a kind.

    Raises:
        UsageError: there is no such kind, several packages define it, or its package is broken; the
            message names the package.
    """
    added = _added().get(name, ())
    if name in kinds.built_in():
        if added:
            raise UsageError(
                f"source kind {name!r}: it is part of mmindex, and {_owners(added)} defines it too",
                "uninstall that package, or ask its author to rename the kind",
            )
        return _imported(name)
    if len(added) > 1:
        raise UsageError(
            f"source kind {name!r}: more than one package defines it: {_owners(added)}",
            "uninstall all of these packages except one",
        )
    if added:
        return _loaded(added[0])
    known = names()
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(
        f"{name!r} is not a source kind{guess} (kinds: {', '.join(known)})",
        "a source is KIND:PLACE[#SPLIT], such as folder:~/photos or coco:/data/coco#val2017",
    )


def _imported(name: str) -> Kind:
    kind = importlib.import_module(f"{kinds.__name__}.{name.replace('-', '_')}").KIND
    if not isinstance(kind, Kind) or kind.name != name:
        raise InternalError(f"the module of source kind {name!r} describes another kind")
    return kind


@functools.cache
def _added() -> dict[str, tuple[EntryPoint, ...]]:
    """Return the kinds of other packages by name, not yet imported."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=GROUP):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def _owners(entries: tuple[EntryPoint, ...]) -> str:
    return ", ".join(sorted(_owner(entry) for entry in entries))


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _loaded(entry: EntryPoint) -> Kind:
    hint = f"update or uninstall {_owner(entry)}"
    try:
        kind = entry.load()
    except Exception as error:  # importing another package can raise any error
        raise UsageError(
            f"source kind {entry.name!r}: the package {_owner(entry)} cannot be loaded: "
            f"{type(error).__name__}: {error}",
            hint,
        ) from error
    if not isinstance(kind, Kind) or kind.name != entry.name:
        raise UsageError(
            f"source kind {entry.name!r}: {entry.value} of the package {_owner(entry)} is not a "
            f"kind with this name",
            hint,
        )
    return kind
