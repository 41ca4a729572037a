"""What the sources of a corpus are called, so that no two images share an id.

A source's name stands before its ids. Two folders called ``DCIM`` would share theirs, so the later
one gets a longer name. A name that a store has given stays, whatever is added or left out later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

from mmindex.core.config import FetchConfig
from mmindex.core.errors import UsageError
from mmindex.core.resources import user_path
from mmindex.sources import registry
from mmindex.sources.base import Kind, Place, SourceSpec
from mmindex.sources.patterns import file_names, find_files, pattern_folder
from mmindex.sources.spec import parse_spec, source_name

_BY_PATH = (Place.FOLDER, Place.FOLDER_OR_ARCHIVE, Place.FILE)


def source_names(
    texts: Sequence[str], fetch: FetchConfig, known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The name of each source, by its spec.

    Args:
        texts: the specs.
        fetch: knows the user's own releases.
        known: names that the store has given, by spec.

    Raises:
        NoInputError: a source does not exist.
        UsageError: a spec makes no sense, or the user gave two sources one name.
    """
    known = known or {}
    names: dict[str, str] = {}
    claimed: dict[str, str] = {}  # what stands before ids: the place that has it
    # Given names first, then remembered ones: neither must change for a source that comes before.
    specs = {text: parse_spec(text) for text in texts}
    order = sorted(specs, key=lambda text: (specs[text].name is None, text not in known))
    for text in order:
        spec, default = specs[text], source_name(specs[text], fetch)
        for name in _candidates(spec, default, known.get(text)):
            claims = _claims(_called(spec, name, default))
            if all(claimed.get(prefix, place) == place for prefix, place in claims.items()):
                claimed |= claims
                names[text] = name
                break
            if spec.name is not None:
                raise UsageError(
                    f"{text!r}: another source has the name {name}", "choose a new name"
                )
    return {text: names[text] for text in texts}


def named_specs(texts: Iterable[str], names: Mapping[str, str]) -> list[SourceSpec]:
    """The parsed specs, with the names that :func:`source_names` gave them."""
    specs = [parse_spec(text) for text in texts]
    return [
        _called(spec, names[text], source_name(spec))
        if registry.find(spec.kind).place in _OWN
        else spec
        for text, spec in zip(texts, specs, strict=True)
    ]


_OWN = (*_BY_PATH, Place.PATTERN)


def _called(spec: SourceSpec, name: str, default: str) -> SourceSpec:
    if name == default:
        return spec
    return dataclasses.replace(spec, name=name.removeprefix(f"{spec.kind}/"))


def _candidates(spec: SourceSpec, default: str, known: str | None) -> Iterator[str]:
    if known is not None:
        yield known
    yield default
    parts = _folder(spec).parts
    label = default.partition("/")[2]
    for length in range(1, len(parts)):
        label = f"{parts[-length - 1].strip('/') or 'root'}-{label}"
        yield f"{spec.kind}/{label}"
    yield from (f"{default}-{number}" for number in count(2))


def _folder(spec: SourceSpec) -> Path:
    """The path whose parts tell a source from others of its name."""
    if registry.find(spec.kind).place is Place.PATTERN:
        return pattern_folder(spec.where)
    return user_path(spec.where).resolve()


def _claims(spec: SourceSpec) -> dict[str, str]:
    """What stands before the ids of a source, and the place that it stands for.

    Published corpora claim nothing: the same id is the same image wherever a copy lies.
    """
    kind = registry.find(spec.kind)
    path = str(_folder(spec))
    if spec.name is not None:
        return {f"{kind.name}/{spec.name}": path}
    if kind.place in _BY_PATH:
        return {source_name(spec): path}
    if kind.place is Place.PATTERN:
        return _pattern_claims(kind, spec)
    return {}


def _pattern_claims(kind: Kind, spec: SourceSpec) -> dict[str, str]:
    names = file_names(spec, find_files(spec.where, kind.suffix))
    return {f"{kind.ids}/{name}": str(path) for path, name in names.items()}


def folder_roots(specs: Iterable[SourceSpec]) -> tuple[str, ...]:
    """The real paths of all folders that are sources."""
    folders = (user_path(spec.where) for spec in specs if registry.find(spec.kind).globs)
    return tuple(str(folder.resolve()) for folder in folders if folder.is_dir())
