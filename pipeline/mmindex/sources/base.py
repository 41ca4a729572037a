"""The definition of a kind of source, and the arguments of its reader.

A kind is a module that defines ``KIND``, a :class:`Kind`. The kinds in
:mod:`mmindex.sources.kinds` are built in; other packages register theirs in the entry point group
``mmindex.sources``::

    [project.entry-points."mmindex.sources"]
    album = "my_package.album:KIND"
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from mmindex.core.config import FetchConfig
from mmindex.core.errors import NoInputError
from mmindex.core.records import SourceEvent
from mmindex.core.resources import user_path
from mmindex.media.files import is_remote
from mmindex.store.forgotten import NOTHING, Forgotten
from mmindex.store.layout import Layout

ARCHIVES: Final = (".zip", ".tar")


class Place(StrEnum):
    """The type of the part after the colon in a source spec."""

    FOLDER = "folder"
    FOLDER_OR_ARCHIVE = "folder, .zip or .tar"
    FILE = "file"
    FILE_OR_FOLDER = "file or folder"
    PATTERN = "pattern"  # a pattern of files; see mmindex.sources.patterns
    RELEASE = "release"  # a folder, or the name of a release in data/corpora
    NO_PATH = "not a path"  # anything else, which `check` of the kind validates


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A parsed source spec, ``[NAME=]KIND:PLACE[#SPLIT]``.

    Attributes:
        kind: the name of the kind.
        where: PLACE, whose meaning depends on the kind.
        split: the part after ``#``, or None.
        name: the name in ids and in the column ``source``, instead of the default.
    """

    kind: str
    where: str
    split: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        name = f"{self.name}=" if self.name is not None else ""
        return f"{name}{self.kind}:{self.where}" + (f"#{self.split}" if self.split else "")

    @property
    def path(self) -> Path | None:
        """PLACE as an absolute path if it contains a separator or exists, otherwise None."""
        if is_remote(self.where):
            return None
        path = user_path(self.where)
        return path.absolute() if "/" in self.where or path.exists() else None


class Listings(Protocol):
    """Remembers the events of files in object stores, so that a later crawl does not read them."""

    def events(
        self, unit: str, fingerprint: str, ids: str, read: Callable[[], Iterator[SourceEvent]]
    ) -> Iterator[SourceEvent]:
        """Yield the events of a unit.

        Args:
            unit: the location of a file or folder.
            fingerprint: of everything that the events depend on.
            ids: the prefix of the ids.
            read: reads the unit, if the fingerprint is not that of the last crawl.
        """


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The options for reading a source.

    Attributes:
        layout: the store, whose downloads folder contains downloaded and generated corpora.
        max_bytes: the size limit of an image file.
        all_files: for ``folder:``, try every file by its content.
        exclude: for ``folder:``, globs of files and folders to skip.
        include: for ``folder:``, globs of the files to read; empty: all files.
        fetch: the network settings.
        max_throttled: for ``urls:``, the share of rows that can be left for a later run because
            their host asks to wait.
        forgotten: for ``urls:``, the items that must not be downloaded or kept.
        roots: real paths of all folders in the corpus: a link into one is not a new image.
        listings: what earlier crawls read in files of object stores, or None.
    """

    layout: Layout
    max_bytes: int
    all_files: bool = False
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    fetch: FetchConfig = field(default_factory=FetchConfig)
    max_throttled: float = 0.01
    forgotten: Forgotten = NOTHING
    roots: tuple[str, ...] = ()
    listings: Listings | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of the reader of a kind.

    Attributes:
        spec: the source; kinds with ``Place.PATTERN`` and ``NO_PATH`` use its ``where``.
        path: the existing file or folder; for a release, the download folder. Without meaning for
            ``s3://`` and the like.
        split: the split to read; None for all.
        options: the store, limits and settings.
        ids: the prefix of the ids.
    """

    spec: SourceSpec
    path: Path
    split: str | None
    options: SourceOptions
    ids: str


@dataclass(frozen=True, slots=True)
class Needs:
    """What must be done before a source can be read.

    Attributes:
        what: a description; empty if nothing is needed.
        bytes: the bytes to download or draw, as far as known.
        images: the number of images that the source will have, or 0 if unknown.
        captions: the number of captions, or 0 if unknown.
    """

    what: str = ""
    bytes: int = 0
    images: int = 0
    captions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The definition of a kind of source.

    Attributes:
        name: the part of a spec before the colon.
        place: the type of the part after it; it determines existence checks, path resolution and
            names.
        form: the form of the place for help texts, such as ``PATH[#SPLIT]``.
        example: a complete spec, for help texts.
        summary: what it reads, in one line; the same as in the README's table.
        read: streams the items of a source, in an order that depends only on its content. Ids are
            relative to ``ids``. Items with the same id and bytes become one image with all
            captions; a second item with other bytes is rejected as ``duplicate_id``.
        ids: the prefix of the ids; None for the name of the source, see ``label``.
        suffix: for ``Place.PATTERN``, the suffix of the file names.
        label: the last part of the source's name (``KIND/LABEL``, its column ``source``); None
            for the default: the name of the folder or file, or nothing for releases.
        check: raises UsageError for an invalid spec, before anything is read.
        needs: what must first be downloaded or drawn; None for nothing, or the files of the
            release.
        globs: whether it supports ``--exclude`` and ``--include``.
        objects: whether it also reads object stores, by opening files with
            :mod:`mmindex.media.files`.
        tree: returns a digest of everything that the items depend on; None if it is unknown, or a
            change at the given time (ns) or later could go unnoticed.
        spreads: whether the nodes of a cluster can read its items. ``read`` of an item must then
            be small, picklable, and independent of this process.
    """

    name: str
    place: Place
    form: str
    example: str
    summary: str
    read: Callable[[Request], Iterator[SourceEvent]]
    ids: str | None = None
    suffix: str = ""
    label: Callable[[SourceSpec], str] | None = None
    check: Callable[[SourceSpec], None] | None = None
    needs: Callable[[SourceSpec, Layout], Needs] | None = None
    globs: bool = False
    objects: bool = False
    tree: Callable[[Request, int], str | None] | None = None
    spreads: bool = False


def unit_events(
    request: Request, unit: str, content: object, read: Callable[[], Iterator[SourceEvent]]
) -> Iterator[SourceEvent]:
    """Yield the events of a file or folder, from the last crawl if it is an object and unchanged.

    Args:
        request: the arguments of the reader.
        unit: the location.
        content: its stamp, or the fingerprint of its listing.
        read: reads it.
    """
    options = request.options
    if options.listings is None or not is_remote(unit):
        return read()
    globs = (options.all_files, options.exclude, options.include)
    fingerprint = repr((content, request.spec.kind, request.split, request.ids, globs))
    return options.listings.events(unit, fingerprint, request.ids, read)


def require_split(split: str | None, known: Collection[str], path: Path, hint: str = "") -> None:
    """Check that a source has the split that its spec names; readers skip the rows of others.

    Raises:
        NoInputError: there is no such split.
    """
    if split is not None and split not in known:
        found = ", ".join(sorted(set(known) - {"all"})) or "none"
        raise NoInputError(f"{path}: no split {split!r} (found: {found})", hint)
