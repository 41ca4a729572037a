"""Any folder of images, with captions where files of a known form bring them.

Captions come from ``captions.jsonl`` or else ``captions.txt`` at the folder's root, which name
images by their path relative to it (forms: :mod:`mmindex.sources.captions`); where neither is
there, from a ``.txt`` beside an image, under the image's name: one caption a line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from mmindex.core.errors import os_errors
from mmindex.core.records import (
    Ignored,
    ItemError,
    Note,
    NoteKind,
    Reason,
    Rejected,
    Skip,
    SourceEvent,
)
from mmindex.media.archive import id_part, item_error
from mmindex.media.places import ImageFolder, is_inside
from mmindex.sources.annotations import stem
from mmindex.sources.base import Kind, Place, Request
from mmindex.sources.caption_lists import CaptionList, Described, read_captions
from mmindex.sources.pictures import Listed, picture_events
from mmindex.store.layout import Layout

# fmt: off
EXTENSIONS: Final = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo",
    ".png", ".apng", ".webp", ".gif", ".bmp",
    ".tif", ".tiff", ".avif", ".avifs", ".heic", ".heif",
    ".jp2", ".j2k", ".jpx", ".ico",
    ".ppm", ".pgm", ".pbm", ".pnm", ".pfm",
})
# fmt: on
_CAPTION_FILES: Final = ("captions.jsonl", "captions.txt")
_SIDECAR: Final = ".txt"


@dataclass(frozen=True, slots=True)
class _Scan:
    """What the walk needs everywhere."""

    images: ImageFolder
    real_root: str
    split: str | None
    all_files: bool
    listed: CaptionList | None
    caption_file: str | None


def read_folder(request: Request) -> Iterator[SourceEvent]:
    """Stream a folder and everything below it, in the byte order of names.

    Links to files inside the folder are followed; links to folders are not (no loops, nothing
    twice); links out of it are rejected. What is neither an image by its extension nor a caption
    file is ignored and counted; with ``all_files`` every file is tried by its content. A split
    keeps only the images that ``captions.jsonl`` or ``captions.txt`` puts in it.

    Raises:
        DataError: a caption file is damaged.
        MmindexError: the folder, or a caption file, cannot be read.
    """
    path = request.path
    name = next((name for name in _CAPTION_FILES if (path / name).is_file()), None)
    scan = _Scan(
        images=ImageFolder(path, request.options.max_bytes),
        real_root=os.path.realpath(path),
        split=request.split,
        all_files=request.options.all_files,
        listed=None if name is None else read_captions(path / name),
        caption_file=name,
    )
    with os_errors(path):
        entries = _listing(str(path))
    yield from _walk(scan, entries)
    if scan.listed is not None:
        yield from scan.listed.summary()


def _listing(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted(entries, key=lambda entry: os.fsencode(entry.name))


def _walk(scan: _Scan, entries: list[os.DirEntry[str]]) -> Iterator[SourceEvent]:
    """Every folder's events, each folder on the spot where its name sorts.

    A stack of its own, because folders may be nested deeper than Python's calls.
    """
    open_folders = [_Folder.of(scan, "", entries)]
    while open_folders:
        folder = open_folders[-1]
        entry = next(folder.entries, None)
        if entry is None:
            open_folders.pop()
            continue
        name = folder.below + entry.name
        if entry.name in folder.sidecars or name == scan.caption_file:
            continue
        try:
            if entry.is_dir(follow_symlinks=False) and Layout(Path(entry.path)).is_store():
                yield Ignored(Skip.STORE)
            elif entry.is_dir(follow_symlinks=False):
                open_folders.append(_Folder.of(scan, f"{name}/", _listing(entry.path)))
            elif entry.is_symlink() and entry.is_dir():
                yield _linked_folder(scan, name, entry.path)
            elif not scan.all_files and _extension(entry.name) not in EXTENSIONS:
                yield Ignored(Skip.NOT_AN_IMAGE)
            else:
                yield from _image(scan, name, folder.sidecars)
        except OSError as error:
            yield _reject(scan, name, item_error(error, entry.path))


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder that the walk stands in; ``below`` is its relative path with a slash, or empty."""

    below: str
    entries: Iterator[os.DirEntry[str]]
    sidecars: frozenset[str]

    @classmethod
    def of(cls, scan: _Scan, below: str, entries: list[os.DirEntry[str]]) -> Self:
        return cls(below, iter(entries), _sidecars(scan, entries))


def _linked_folder(scan: _Scan, name: str, path: str) -> SourceEvent:
    real = os.path.realpath(path)
    if real == scan.real_root or is_inside(real, scan.real_root):
        return Ignored(Skip.LINKED_FOLDER)
    return _reject(scan, name, ItemError(Reason.UNSAFE_PATH, "a link leads out of the folder"))


def _image(scan: _Scan, name: str, sidecars: frozenset[str]) -> Iterator[SourceEvent]:
    described = scan.listed.take(name) if scan.listed is not None else None
    captioned = described is not None
    if described is None:
        described = Described()
        sidecar = stem(name) + _SIDECAR
        if sidecar.rpartition("/")[2] in sidecars:
            yield from _read_sidecar(scan, sidecar, described)
    if scan.split is not None and described.split != scan.split:
        yield Ignored(Skip.OTHER_SPLIT)
        return
    captions = described.captions if captioned or described.captions else None
    listed = Listed(id_part(name), name, captions, described.split, described.metadata)
    yield from picture_events(scan.images, listed)


def _read_sidecar(scan: _Scan, name: str, described: Described) -> Iterator[Note]:
    """Add the lines of an image's own caption file; one that is unusable costs no image."""
    try:
        text = scan.images.find(name).read().decode("utf-8-sig")
    except (ItemError, UnicodeDecodeError):
        yield Note(NoteKind.UNREADABLE_CAPTION_FILES)
        return
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    described.captions.extend(line for line in lines if line.strip())


def _reject(scan: _Scan, name: str, error: ItemError) -> Rejected:
    return Rejected(id_part(name), scan.images.uri(name), error.reason, error.detail)


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # names, not paths


def _sidecars(scan: _Scan, entries: list[os.DirEntry[str]]) -> frozenset[str]:
    """Names of the ``.txt`` files that stand beside an image of their own name."""
    if scan.listed is not None:
        return frozenset()
    names = {entry.name for entry in entries}
    return frozenset(
        sidecar
        for name in names
        if _extension(name) != _SIDECAR and (scan.all_files or _extension(name) in EXTENSIONS)
        if (sidecar := stem(name) + _SIDECAR) in names
    )


KIND: Final = Kind(
    name="folder",
    place=Place.FOLDER,
    form="PATH[#SPLIT]",
    example="folder:~/Pictures",
    summary="pictures, however nested; captions from `captions.txt`, `captions.jsonl` or a `.txt`"
    " beside each picture",
    read=read_folder,
)
