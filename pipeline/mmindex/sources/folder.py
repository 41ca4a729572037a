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
from mmindex.core.records import Ignored, ItemError, Note, Reason, Rejected, SourceEvent, SourceItem
from mmindex.media.archive import id_part, item_error
from mmindex.media.places import ImageFolder, is_inside
from mmindex.sources.annotations import notes
from mmindex.sources.captions import CaptionList, Described, read_captions
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
    id_prefix: str
    split: str | None
    all_files: bool
    listed: CaptionList | None
    caption_file: str | None


def folder_events(
    path: Path, split: str | None, max_bytes: int, *, all_files: bool
) -> Iterator[SourceEvent]:
    """Stream a folder and everything below it, in the byte order of names.

    Links to files inside the folder are followed; links to folders are not (no loops, nothing
    twice); links out of it are rejected. What is neither an image by its extension nor a caption
    file is ignored and counted; with ``all_files`` every file is tried by its content.

    Args:
        path: the folder.
        split: keep only images that ``captions.jsonl`` or ``captions.txt`` puts in this split.
        max_bytes: limit for one image.
        all_files: try every file, whatever its name.

    Raises:
        DataError: a caption file is damaged.
        MmindexError: the folder, or a caption file, cannot be read.
    """
    name = next((name for name in _CAPTION_FILES if (path / name).is_file()), None)
    scan = _Scan(
        images=ImageFolder(path, max_bytes),
        real_root=os.path.realpath(path),
        id_prefix=f"folder/{folder_name(path)}",
        split=split,
        all_files=all_files,
        listed=None if name is None else read_captions(path / name),
        caption_file=name,
    )
    with os_errors(path):
        entries = _listing(str(path))
    yield from _walk(scan, entries)
    if scan.listed is not None:
        yield from scan.listed.summary()


def folder_name(path: Path) -> str:
    """The name that stands for a folder in ids: its last part, links resolved."""
    return id_part(path.resolve().name or "root")


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
                # Its own files would change the corpus with every build.
                yield Ignored("an mmindex store")
            elif entry.is_dir(follow_symlinks=False):
                open_folders.append(_Folder.of(scan, f"{name}/", _listing(entry.path)))
            elif entry.is_symlink() and entry.is_dir():
                yield _linked_folder(scan, name, entry.path)
            elif not scan.all_files and _extension(entry.name) not in EXTENSIONS:
                yield Ignored("not an image by its extension")
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
        return Ignored("a link to a folder of the source")
    return _reject(scan, name, ItemError(Reason.UNSAFE_PATH, "a link leads out of the folder"))


def _image(scan: _Scan, name: str, sidecars: frozenset[str]) -> Iterator[SourceEvent]:
    described = scan.listed.take(name) if scan.listed is not None else None
    if described is None:
        described = Described()
        sidecar = _stem(name) + _SIDECAR
        if sidecar.rpartition("/")[2] in sidecars:
            yield from _read_sidecar(scan, sidecar, described)
    if scan.split is not None and described.split != scan.split:
        yield Ignored("in another split")
        return
    try:
        found = scan.images.find(name)
    except ItemError as error:
        yield _reject(scan, name, error)
        yield from notes(captions_of_rejected_images=len(described.captions))
        return
    yield SourceItem(
        image_id=_image_id(scan, name),
        uri=found.uri,
        split=described.split,
        captions=tuple(described.captions),
        read=found.read,
        metadata=described.metadata,
        stamp=found.stamp,
    )


def _read_sidecar(scan: _Scan, name: str, described: Described) -> Iterator[Note]:
    """Add the lines of an image's own caption file; one that is unusable costs no image."""
    try:
        text = scan.images.find(name).read().decode("utf-8-sig")
    except (ItemError, UnicodeDecodeError):
        yield Note("unreadable_caption_files")
        return
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    described.captions.extend(line for line in lines if line.strip())


def _image_id(scan: _Scan, name: str) -> str:
    return f"{scan.id_prefix}/{id_part(name)}"


def _reject(scan: _Scan, name: str, error: ItemError) -> Rejected:
    return Rejected(_image_id(scan, name), scan.images.uri(name), error.reason, error.detail)


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # names, not paths


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122


def _sidecars(scan: _Scan, entries: list[os.DirEntry[str]]) -> frozenset[str]:
    """Names of the ``.txt`` files that stand beside an image of their own name."""
    if scan.listed is not None:
        return frozenset()
    names = {entry.name for entry in entries}
    return frozenset(
        sidecar
        for name in names
        if _extension(name) != _SIDECAR and (scan.all_files or _extension(name) in EXTENSIONS)
        if (sidecar := _stem(name) + _SIDECAR) in names
    )
