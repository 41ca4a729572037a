"""Parse source specs, ``[NAME=]KIND:PLACE[#SPLIT]``, and open sources."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Final

from mmindex.core.config import FetchConfig
from mmindex.core.errors import NoInputError, UsageError
from mmindex.core.records import CaptionItem, Rejected, SourceEvent, SourceItem, VectorItem
from mmindex.core.resources import user_path
from mmindex.media.archive import id_part
from mmindex.media.buckets import head, walk
from mmindex.media.files import is_remote
from mmindex.media.services import split_location
from mmindex.sources import registry
from mmindex.sources.base import ARCHIVES, Kind, Place, Request, SourceOptions, SourceSpec
from mmindex.sources.kinds import kind_of
from mmindex.sources.patterns import find_files, pattern_name, place_name
from mmindex.sources.releases import fetch_release, find_release

# The characters of a name, which becomes part of ids and of the column `source`.
_NAME: Final = re.compile(r"\w(?:[\w .-]{0,98}[\w.-])?")

__all__ = [
    "SourceOptions",
    "SourceSpec",
    "absolute_spec",
    "open_source",
    "parse_spec",
    "source_name",
]


def parse_spec(text: str) -> SourceSpec:
    """Parse a source spec.

    A ``#`` in the name of an existing path does not start a split.

    Raises:
        UsageError: there is no such kind, the place is empty, or the place is invalid.
    """
    head, colon, rest = text.partition(":")
    if not colon and user_path(text).exists():
        raise UsageError(f"{text!r}: a source needs a kind", f"did you mean folder:{text}?")
    name, equals, kind_name = head.rpartition("=")
    if equals and not _NAME.fullmatch(name):
        raise UsageError(
            f"{text!r}: {name!r} is not a valid name for a source",
            "a name can contain letters, digits, spaces and . _ -",
        )
    kind = registry.find(kind_name)
    where, hash_, split = rest, "", ""
    if not user_path(rest).exists():
        head, hash_, tail = rest.rpartition("#")
        where, split = (head, tail) if hash_ else (rest, "")
    if not where or (hash_ and not split):
        raise UsageError(
            f"{text!r}: nothing {'after #' if where else 'after the colon'}",
            f"for example {kind.example}",
        )
    if is_remote(where):
        _require_objects(kind, where)
    spec = SourceSpec(kind_name, where, split or None, name if equals else None)
    if kind.check is not None:
        kind.check(spec)
    return spec


def _require_objects(kind: Kind, where: str) -> None:
    """Refuse object stores for kinds that read files only, and places that hold a password."""
    split_location(where)
    if not kind.objects and kind.place is not Place.NO_PATH:
        able = ", ".join(f"{one.name}:" for one in registry.listed() if one.objects)
        raise UsageError(
            f"{kind.name}:{where}: this kind of source does not read object stores",
            f"{able} do; copy other corpora to a disk",
        )


def absolute_spec(text: str, folder: Path) -> str:
    """Return a spec whose path, if it has one, is absolute.

    Args:
        text: a spec; an unknown kind is returned unchanged, and :func:`parse_spec` rejects it.
        folder: what a relative path is relative to.
    """
    head, colon, where = text.partition(":")
    kind = kind_of(text)
    if not where or kind not in registry.names():
        return text
    place = registry.find(kind).place
    if place is Place.NO_PATH or where.startswith("~") or is_remote(where):
        return text
    there = any(one and (folder / one).exists() for one in (where, where.rpartition("#")[0]))
    if place is Place.RELEASE and "/" not in where and not there:
        return text
    return f"{head}{colon}{os.path.join(folder, where)}"  # noqa: PTH118  # Path drops a trailing slash


def open_source(spec: SourceSpec, options: SourceOptions) -> Iterator[SourceEvent]:
    """Stream the content of a source, in an order that depends only on its content.

    The files of a named release and the images of a URL list are downloaded first.

    Raises:
        NoInputError: the source does not exist.
        DataError: its annotations are damaged.
        NetworkError, BusyError: a download fails.
    """
    kind = registry.find(spec.kind)
    split = spec.split
    if kind.place is Place.RELEASE and spec.path is None:
        release = find_release(spec.kind, spec.where, split, options.fetch)
        path = fetch_release(release, options.layout, options.fetch)
        split = split or release.part.split
    else:
        path = _existing(kind, spec)
    prefix = _name(kind, spec) if spec.name is not None or kind.ids is None else kind.ids
    return _with_ids(prefix, kind.read(Request(spec, path, split, options, prefix)))


def source_tree(spec: SourceSpec, options: SourceOptions, before_ns: int) -> str | None:
    """Return a digest of everything that the items of a source depend on, see :class:`Kind`."""
    kind = registry.find(spec.kind)
    if kind.tree is None:
        return None
    path, prefix = user_path(spec.where).absolute(), _name(kind, spec)
    return kind.tree(Request(spec, path, spec.split, options, prefix), before_ns)


def _with_ids(prefix: str, events: Iterator[SourceEvent]) -> Iterator[SourceEvent]:
    for event in events:
        if isinstance(event, SourceItem | VectorItem | CaptionItem | Rejected):
            yield dataclasses.replace(event, image_id=f"{prefix}/{event.image_id}")
        else:
            yield event


def source_name(spec: SourceSpec, fetch: FetchConfig | None = None) -> str:
    """Return the value of the column ``source``: the kind and the name of the place.

    Args:
        spec: the source.
        fetch: the network settings, with the user's own releases.

    Raises:
        NoInputError: the source does not exist.
        UsageError: the pattern is invalid, or the release has no such split.
    """
    kind = registry.find(spec.kind)
    if kind.place is Place.RELEASE and spec.path is None:
        find_release(spec.kind, spec.where, spec.split, fetch or FetchConfig())
    else:
        _existing(kind, spec)
    return _name(kind, spec)


def _name(kind: Kind, spec: SourceSpec) -> str:
    label = spec.name
    if label is None and is_remote(spec.where) and kind.place is not Place.PATTERN:
        name = place_name(spec.where)
        label = PurePath(name).stem if name.lower().endswith(ARCHIVES) else name
    if label is None:
        label = kind.label(spec) if kind.label is not None else _label(kind, spec)
    return f"{kind.name}/{id_part(label)}" if label else kind.name


def _label(kind: Kind, spec: SourceSpec) -> str:
    match kind.place:
        case Place.FOLDER:
            return user_path(spec.where).resolve().name or "root"  # links resolved
        case Place.FOLDER_OR_ARCHIVE:
            path = user_path(spec.where).resolve()
            return (path.stem if path.is_file() else path.name) or "root"
        case Place.FILE:
            return user_path(spec.where).stem
        case Place.FILE_OR_FOLDER:
            path = user_path(spec.where)
            return path.stem if path.is_file() else path.resolve().name or "root"
        case Place.PATTERN:
            return pattern_name(spec.where)
        case _:
            return ""


def _existing(kind: Kind, spec: SourceSpec) -> Path:
    """Return the existing place of a source.

    Raises:
        NoInputError: it does not exist.
    """
    path = user_path(spec.where).absolute()
    if kind.place is Place.PATTERN:
        find_files(spec.where, kind.suffix)
    elif is_remote(spec.where):
        if next(iter(walk(spec.where)), None) is None and head(spec.where) is None:
            raise NoInputError(
                f"{spec.where}: no such object, and none below it",
                f"check the bucket and the key in {str(spec)!r}",
            )
    elif kind.place is not Place.NO_PATH:
        archive = path.is_file() and path.suffix.lower() in ARCHIVES
        there = {
            Place.FILE: path.is_file(),
            Place.FILE_OR_FOLDER: path.exists(),
            Place.FOLDER_OR_ARCHIVE: path.is_dir() or archive,
        }.get(kind.place, path.is_dir())
        if not there:
            what = "folder" if kind.place is Place.RELEASE else kind.place
            raise NoInputError(
                f"{path}: " + (f"not a {what}" if path.exists() else f"no such {what}"),
                f"check the path in {str(spec)!r}",
            )
    return path
