"""What a kind of source is: the description that its module registers, and what its reader gets.

A kind is one module that defines ``KIND``, a :class:`Kind`. Those in :mod:`mmindex.sources.kinds`
are built in; other packages name theirs in the entry point group ``mmindex.sources``::

    [project.entry-points."mmindex.sources"]
    album = "my_package.album:KIND"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from mmindex.core.config import FetchConfig
from mmindex.core.records import SourceEvent
from mmindex.core.resources import user_path
from mmindex.store.forgotten import NOTHING, Forgotten
from mmindex.store.layout import Layout

ARCHIVES: Final = (".zip", ".tar")


class Place(StrEnum):
    """What stands after the colon of a source spec."""

    FOLDER = "folder"
    FOLDER_OR_ARCHIVE = "folder, .zip or .tar"
    FILE = "file"
    PATTERN = "pattern"  # of files, see mmindex.sources.patterns
    RELEASE = "release"  # a folder, or the name of a release that data/corpora describes
    NO_PATH = "not a path"  # something else, which the kind's own `check` understands


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A parsed source spec, ``[NAME=]KIND:PLACE[#SPLIT]``.

    Attributes:
        kind: the kind's name.
        where: PLACE; the kind says what it is.
        split: the part after ``#``, or None.
        name: what it is called in ids and its column ``source``, in place of the default.
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
        """PLACE as an absolute path if it holds a separator or exists, else None."""
        path = user_path(self.where)
        return path.absolute() if "/" in self.where or path.exists() else None


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What reading a source needs beside its spec.

    Attributes:
        layout: the store, whose downloads folder holds fetched and generated corpora.
        max_bytes: limit for one image's file.
        all_files: for ``folder:``, try every file by its content.
        exclude: for ``folder:``, globs of what is left out.
        include: for ``folder:``, globs of what alone is taken; empty: everything.
        fetch: how to behave on the network.
        max_throttled: for ``urls:``, the share of rows that may be left for a later run because
            their host asks to wait.
        forgotten: for ``urls:``, what must not be fetched, or not kept.
        roots: real paths of all folders of the corpus: a link into one is not a new image.
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


@dataclass(frozen=True, slots=True)
class Request:
    """What a kind's reader is asked to read.

    Attributes:
        spec: the source; its ``where`` matters to kinds of ``Place.PATTERN`` and ``NO_PATH``.
        path: the file or folder, which exists; of a release, the folder it was fetched into.
        split: the split to read; None for all.
        options: the store, limits and settings.
        ids: what will stand before the ids.
    """

    spec: SourceSpec
    path: Path
    split: str | None
    options: SourceOptions
    ids: str


@dataclass(frozen=True, slots=True)
class Needs:
    """What must come before a source can be read.

    Attributes:
        what: the same in words; empty: it can be read as it is.
        bytes: to be fetched or drawn, as far as known.
        images: how many the source will have, where that is known; otherwise 0.
        captions: likewise.
    """

    what: str = ""
    bytes: int = 0
    images: int = 0
    captions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The description of a kind of source.

    Attributes:
        name: what stands before the colon of a spec.
        place: what stands after it; existence, path resolution and names follow from this.
        form: the same for people, such as ``PATH[#SPLIT]``.
        example: a whole spec, for help.
        summary: what it reads, in one line; the README's table says the same.
        read: streams what a source holds, in an order that depends on its content alone. Ids are
            relative to ``ids``, unique within the source.
        ids: what stands before the ids; None for the source's name, see ``label``.
        suffix: of ``Place.PATTERN``, what the files' names end in.
        label: the last part of the source's name (``KIND/LABEL``, its column ``source``); None
            for the default: the name of the folder or file, nothing for releases.
        check: raises UsageError for a spec without meaning; nothing is read yet.
        needs: what must be fetched or drawn first; None: nothing, or what the release says.
        globs: whether it understands ``--exclude`` and ``--include``.
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
