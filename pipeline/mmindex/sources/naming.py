"""Name the sources of a corpus so that no two images have the same id.

The name of a source is the prefix of its ids. Two folders called ``DCIM`` would have the same
prefix, so the later one gets a longer name. A source in a store keeps its name when other sources
are added or removed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import PurePath

from mmindex.core.config import FetchConfig
from mmindex.core.errors import UsageError
from mmindex.core.resources import user_path
from mmindex.media.files import is_remote
from mmindex.sources import registry
from mmindex.sources.base import Kind, Place, SourceSpec
from mmindex.sources.patterns import file_names, find_files, pattern_folder
from mmindex.sources.spec import parse_spec, source_name

_BY_PATH = (Place.FOLDER, Place.FOLDER_OR_ARCHIVE, Place.FILE, Place.FILE_OR_FOLDER)


def source_names(
    texts: Sequence[str], fetch: FetchConfig, known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the name of each source by spec.

    Args:
        texts: the specs.
        fetch: the network settings, with the user's own releases.
        known: existing names in the store, by spec.

    Raises:
        NoInputError: a source does not exist.
        UsageError: a spec is invalid, or two sources have the same name.
    """
    known = known or {}
    names: dict[str, str] = {}
    claimed: dict[str, str] = {}  # id prefixes, each with its place
    # Given names first, then remembered ones: neither must change because of an earlier source.
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
    """Return the parsed specs with the names from :func:`source_names`."""
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
    parts = PurePath(_folder(spec)).parts
    label = default.partition("/")[2]
    for length in range(1, len(parts)):
        label = f"{parts[-length - 1].strip('/') or 'root'}-{label}"
        yield f"{spec.kind}/{label}"
    yield from (f"{default}-{number}" for number in count(2))


def _folder(spec: SourceSpec) -> str:
    """Return the path whose parts distinguish sources with the same name."""
    if registry.find(spec.kind).place is Place.PATTERN:
        return pattern_folder(spec.where)
    if is_remote(spec.where):
        return spec.where.rstrip("/")
    return str(user_path(spec.where).resolve())


def _claims(spec: SourceSpec) -> dict[str, str]:
    """Return the id prefix of a source and the place for which it is used.

    Published corpora need no unique prefix: the same id is the same image in every copy.
    """
    kind = registry.find(spec.kind)
    path = _folder(spec)
    if spec.name is not None:
        return {f"{kind.name}/{spec.name}": path}
    if kind.place in _BY_PATH:
        return {source_name(spec): path}
    if kind.place is Place.PATTERN:
        return _pattern_claims(kind, spec)
    return {}


def _pattern_claims(kind: Kind, spec: SourceSpec) -> dict[str, str]:
    names = file_names(spec, find_files(spec.where, kind.suffix))
    return {f"{kind.ids}/{name}": path for path, name in names.items()}


def folder_roots(specs: Iterable[SourceSpec]) -> tuple[str, ...]:
    """Return the real paths of all source folders."""
    folders = (user_path(spec.where) for spec in specs if registry.find(spec.kind).globs)
    return tuple(str(folder.resolve()) for folder in folders if folder.is_dir())
