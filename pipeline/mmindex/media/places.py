"""Folders, zip archives and object stores with images of a source, and access by name."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from mmindex.core.errors import NoInputError
from mmindex.core.records import ItemError, Reason, Stamp
from mmindex.media import archive, buckets
from mmindex.media.files import uri_of_location


@dataclass(frozen=True, slots=True)
class Found:
    """The location of an image; the fields are those of :class:`mmindex.core.records.SourceItem`.

    ``path`` is empty for a member of an archive.
    """

    uri: str
    read: Callable[[], bytes]
    stamp: Stamp
    path: str = ""


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Images in a folder. Links can point anywhere inside it, but not outside."""

    root: Path
    max_bytes: int

    def uri(self, name: str) -> str:
        """The URI that ``name`` has, whether or not it is there."""
        return uri_of_location(f"{self.root}/{name}")

    def find(self, name: str) -> Found:
        """Find an image by its name relative to the folder.

        Raises:
            ItemError: the name points outside the folder, or there is no readable file.
        """
        check_relative(name)
        spelt = next(filter(self._exists, spellings(name)), name)
        path = os.path.join(self.root, spelt)  # noqa: PTH118  # Path drops "./"
        try:
            real = os.path.realpath(path)
            if not is_inside(real, _real_root(self.root)):
                raise ItemError(Reason.UNSAFE_PATH, "a link points outside the folder")
            status = os.stat(path)  # noqa: PTH116  # names may hold bytes that are no UTF-8
        except OSError as error:
            raise archive.item_error(error, path) from error
        read = functools.partial(archive.read_file, path, self.max_bytes)
        stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
        return Found(self.uri(spelt), read, stamp, path)

    def _exists(self, name: str) -> bool:
        return os.path.lexists(os.path.join(self.root, name))  # noqa: PTH118


@dataclass(frozen=True, slots=True)
class ImageArchive:
    """Images in a zip archive, in the first of ``prefixes`` that contains the name."""

    path: str
    prefixes: tuple[str, ...]
    max_bytes: int

    def uri(self, name: str) -> str:
        """The URI that ``name`` has, whether or not it is there."""
        return archive.uri_of_member(self.path, self._member(name))

    def find(self, name: str) -> Found:
        """Find an image by its name.

        Raises:
            ItemError: the name points outside, or the member is missing or hostile.
            MmindexError: the archive itself is unreadable.
        """
        member = self._member(check_relative(name))
        index = archive.open_zip(self.path)
        archive.check_member(index, member)
        read = functools.partial(archive.read_member, self.path, member, self.max_bytes)
        return Found(archive.uri_of_member(self.path, member), read, index.stamp)

    def _member(self, name: str) -> str:
        members = archive.open_zip(self.path).members
        candidates = (prefix + spelt for spelt in spellings(name) for prefix in self.prefixes)
        return next((one for one in candidates if one in members), self.prefixes[0] + name)


@dataclass(frozen=True, slots=True)
class ImageBucket:
    """Images below a folder of an object store, listed once.

    Attributes:
        folder: the location of the folder.
        listed: the objects below it by relative name.
        max_bytes: the size limit of an image.
    """

    folder: str
    listed: Mapping[str, buckets.Listed]
    max_bytes: int

    @classmethod
    def of(cls, folder: str, max_bytes: int) -> Self:
        """List a folder; raises as :func:`mmindex.media.buckets.walk`."""
        start = len(buckets.child(folder, ""))
        listed = {found.location[start:]: found for found in buckets.walk(folder)}
        return cls(folder, listed, max_bytes)

    def uri(self, name: str) -> str:
        """The URI that ``name`` has, whether or not it is there."""
        return uri_of_location(buckets.child(self.folder, name))

    def find(self, name: str) -> Found:
        """Find an image by its name relative to the folder.

        Raises:
            ItemError: the name points outside the folder, or there is no such object.
        """
        check_relative(name)
        spelt = next((one for one in spellings(name) if one in self.listed), None)
        if spelt is None:
            raise ItemError(Reason.MISSING, "no such object")
        found = self.listed[spelt]
        read = functools.partial(buckets.read_object, found.location, self.max_bytes)
        return Found(self.uri(spelt), read, found.stamp)

    @property
    def fingerprint(self) -> str:
        """The digest of the listing: it changes with every object that is written or removed."""
        digest = hashlib.sha256()
        for name in sorted(self.listed):
            found = self.listed[name]
            digest.update(f"{name}\0{found.size} {found.version}\n".encode())
        return digest.hexdigest()


class ImagePlace(Protocol):
    """A place with images: a folder, or an archive that is read in place."""

    def uri(self, name: str) -> str:
        """The URI that ``name`` has, whether or not it is there."""

    def find(self, name: str) -> Found:
        """Find an image by its name.

        Raises:
            ItemError: the name points outside, or there is no readable file.
        """


def spellings(name: str) -> Iterator[str]:
    """Yield a listed name, then the spellings of other systems, each once.

    They differ in slashes, composed or decomposed letters, the case of the extension, and leading
    folders.
    """
    yield name
    seen = {name}
    slashed = name.replace("\\", "/")
    tails = [slashed]
    while "/" in tails[-1]:
        tails.append(tails[-1].partition("/")[2])
    for tail in filter(None, tails):
        for form in (tail, unicodedata.normalize("NFC", tail), unicodedata.normalize("NFD", tail)):
            stem, extension = os.path.splitext(form)  # noqa: PTH122
            for spelt in (form, stem + extension.lower(), stem + extension.upper()):
                if spelt not in seen:
                    seen.add(spelt)
                    yield spelt


def find_place(base: Path, names: Sequence[str], max_bytes: int) -> ImagePlace | None:
    """Return the first of ``names`` that exists in ``base``, as a folder or as ``NAME.zip``.

    Args:
        base: the folder of the corpus.
        names: candidates, best first, such as ``val2017`` and ``images/val2017``.
        max_bytes: the size limit of an image.
    """
    for name in names:
        if (base / name).is_dir():
            return ImageFolder(base / name, max_bytes)
    for name in names:
        packed = base / f"{name}.zip"
        if packed.is_file():
            folders = (*(f"{inner}/" for inner in (Path(name).name, *names)), "")
            return ImageArchive(str(packed), tuple(dict.fromkeys(folders)), max_bytes)
    return None


def require_place(base: Path, names: Sequence[str], max_bytes: int) -> ImagePlace:
    """Return the place as :func:`find_place`, or raise an error.

    Raises:
        NoInputError: none of the candidates exists.
    """
    place = find_place(base, names, max_bytes)
    if place is None:
        tried = ", ".join(f"{name}/ or {name}.zip" for name in names)
        raise NoInputError(f"{base}: no images there", f"expected one of: {tried}")
    return place


def check_relative(name: str) -> str:
    """Return a relative name that stays inside its folder.

    Raises:
        ItemError: the name is empty, absolute, contains NUL, or leaves the folder with ``..``.
    """
    if not is_relative(name):
        raise ItemError(Reason.UNSAFE_PATH, "the name points outside the folder of the source")
    return name


def is_relative(name: str) -> bool:
    """Return whether a relative name stays inside its folder."""
    parts = re.split(r"[/\\]", name)
    return bool(name) and name[0] not in "/\\" and ".." not in parts and "\0" not in name


def is_inside(real: str, real_root: str) -> bool:
    """Return whether a real path (without links) is inside another."""
    return real.startswith(real_root.rstrip("/") + "/")


@functools.lru_cache(maxsize=64)
def _real_root(root: Path) -> str:
    return os.path.realpath(root)
