"""A folder of images, or a zip or tar of images, with captions from files.

In a folder, video frames are also images if the extra ``video`` is installed.

Captions come from a list (forms: :mod:`mmindex.sources.caption_lists`): ``captions.*`` at the root,
or ``metadata.jsonl`` and ``metadata.csv`` in any folder, as in the Hugging Face imagefolder layout
(https://huggingface.co/docs/datasets/image_dataset). A list contains image paths relative to
itself. Images that are in no list can have a ``.txt`` next to them, with one caption per line.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Generator, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mmindex.core.errors import DataError, os_errors
from mmindex.core.records import (
    Expected,
    Ignored,
    ItemError,
    Note,
    NoteKind,
    Reason,
    Rejected,
    Skip,
    SourceEvent,
)
from mmindex.media.archive import id_part, item_error, list_members
from mmindex.media.buckets import head
from mmindex.media.files import is_remote, stamp_of
from mmindex.media.kinds import VIDEO
from mmindex.media.places import ImageArchive, ImageBucket, ImageFolder, ImagePlace, is_inside
from mmindex.media.tars import ImageTar
from mmindex.sources.annotations import stem
from mmindex.sources.base import ARCHIVES, Kind, Place, Request, unit_events
from mmindex.sources.caption_lists import CaptionList, Described, names_images, parse_captions
from mmindex.sources.listed import Listed, image_events
from mmindex.sources.names import match_names
from mmindex.sources.rules import Rules, extension
from mmindex.sources.trees import tree_digest
from mmindex.store.layout import Layout

# Best first; those of the second row in every folder.
_ROOT_LISTS: Final = ("captions.jsonl", "captions.txt", "captions.csv", "captions.tsv")
_LISTS: Final = ("metadata.jsonl", "metadata.csv")
_ALL_LISTS: Final = frozenset((*_ROOT_LISTS, *_LISTS))
_TEXT: Final = ".txt"
_XMP: Final = (".xmp", ".XMP")


@dataclass(slots=True)
class _Captions:
    """A caption list, and the folder of its images.

    Attributes:
        file: the path of the list, relative to the source.
        below: the path of its folder with a slash at the end, or empty.
        listed: the content.
        spelt: listed names by file, for names that the list spells differently.
    """

    file: str
    below: str
    listed: CaptionList
    spelt: dict[str, str]

    def take(self, name: str) -> Described | None:
        """Remove and return the entry for the file ``name``, relative to the source."""
        if not name.startswith(self.below):
            return None
        relative = name[len(self.below) :]
        return self.listed.take(self.spelt.get(relative, relative))


@dataclass(frozen=True, slots=True)
class _Scan:
    """The state of a scan; ``lists`` are the caption lists that apply to the current folder."""

    place: ImagePlace
    rules: Rules
    split: str | None
    root: str
    roots: tuple[str, ...]
    lists: list[_Captions] = field(default_factory=list)

    def described(self, name: str) -> Described | None:
        """Return the entry of an image in the nearest list that contains it."""
        found = (captions.take(name) for captions in reversed(self.lists))
        return next((one for one in found if one is not None), None)


def read_folder(request: Request) -> Iterator[SourceEvent]:
    """Stream a folder and its subfolders in the byte order of names, or an archive.

    Links to images in the corpus are other names for these; links to folders are not followed, and
    links that point outside the folder are rejected. Files that
    :class:`mmindex.sources.rules.Rules` skips are ignored and counted. With a split, only the
    images that a caption list assigns to it are read.

    Raises:
        DataError: a caption list or the archive is damaged.
        MmindexError: the folder, the archive or a caption list cannot be read.
    """
    if is_remote(request.spec.where):
        yield from _read_objects(request)
        return
    path, options = request.path, request.options
    rules = _rules(request)
    root = os.path.realpath(path)
    if path.is_dir():
        folder = ImageFolder(path, options.max_bytes)
        with os_errors(path):
            entries = _listing(str(path))
        yield from _walk(_Scan(folder, rules, request.split, root, options.roots), entries)
    else:
        yield from _packed(str(path), rules, request)


def folder_tree(request: Request, before_ns: int) -> str | None:
    """Return the digest of a folder's files, see :func:`mmindex.sources.trees.tree_digest`."""
    if is_remote(request.spec.where) or not request.path.is_dir():
        return None
    return tree_digest(os.path.realpath(request.path), _rules(request), before_ns)


def _rules(request: Request) -> Rules:
    options = request.options
    # Frames are found by seeking, which is not possible in a member of an archive.
    videos = request.path.is_dir() and VIDEO.installed
    return Rules.of(options.exclude, options.include, all_files=options.all_files, videos=videos)


def _packed(path: str, rules: Rules, request: Request) -> Iterator[SourceEvent]:
    """Stream an archive."""
    if extension(path) == ".tar":
        tar = ImageTar(path, request.options.max_bytes)
        yield from _members(_Scan(tar, rules, request.split, path, ()), tar.names())
    else:
        packed = ImageArchive(path, ("",), request.options.max_bytes)
        yield from _members(_Scan(packed, rules, request.split, path, ()), list_members(path))


def _read_objects(request: Request) -> Iterator[SourceEvent]:
    """Stream the objects below a folder, or an archive that is an object."""
    where, options = request.spec.where.rstrip("/"), request.options
    rules = Rules.of(options.exclude, options.include, all_files=options.all_files, videos=False)
    archive = extension(where) in ARCHIVES and head(where) is not None
    if not archive:
        bucket = ImageBucket.of(where, options.max_bytes)
        scan = _Scan(bucket, rules, request.split, where, ())
        read = functools.partial(_members, scan, list(bucket.listed))
        yield from unit_events(request, where, bucket.fingerprint, read)
        return
    read = functools.partial(_packed, where, rules, request)
    yield from unit_events(request, where, stamp_of(where), read)


# Folders


@dataclass(frozen=True, slots=True)
class _Folder:
    """The current folder; ``below`` is its relative path with a slash, or empty."""

    below: str
    entries: Iterator[os.DirEntry[str]]
    sidecars: frozenset[str]
    captions: _Captions | None


def _listing(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted(entries, key=lambda entry: os.fsencode(entry.name))


def _walk(scan: _Scan, entries: list[os.DirEntry[str]]) -> Iterator[SourceEvent]:
    """Yield the events of all folders, each folder at the sorted position of its name.

    It uses its own stack, because folders can be nested deeper than Python's recursion limit.
    """
    open_folders = [_enter(scan, "", entries)]
    while open_folders:
        folder = open_folders[-1]
        entry = next(folder.entries, None)
        if entry is None:
            open_folders.pop()
            if folder.captions is not None:
                scan.lists.remove(folder.captions)
                yield from folder.captions.listed.summary()
            continue
        name = folder.below + entry.name
        if name in folder.sidecars or any(name == one.file for one in scan.lists):
            continue
        try:
            if not entry.is_dir(follow_symlinks=False):
                yield from _file(scan, name, entry, folder.sidecars)
            elif Layout(Path(entry.path)).is_store():
                yield Ignored(Skip.STORE)
            elif why := scan.rules.skip_folder(name):
                yield Ignored(why)
            else:
                open_folders.append(_enter(scan, f"{name}/", _listing(entry.path)))
        except OSError as error:
            yield _reject(scan, name, item_error(error, entry.path))


def _enter(scan: _Scan, below: str, entries: list[os.DirEntry[str]]) -> _Folder:
    names = {below + entry.name for entry in entries}
    captions = _open_list(scan, below, names, _files_below(scan, below, entries))
    if captions is not None:
        scan.lists.append(captions)
    return _Folder(below, iter(entries), _sidecars(scan, names), captions)


def _files_below(scan: _Scan, below: str, entries: list[os.DirEntry[str]]) -> Iterator[str]:
    """Return the images in a folder and its subfolders, as paths relative to it."""
    waiting = [(below, entries)]
    while waiting:
        folder, found = waiting.pop()
        for entry in found:
            name = folder + entry.name
            if not entry.is_dir(follow_symlinks=False):
                if scan.rules.skip_file(name) is None:
                    yield name[len(below) :]
            elif scan.rules.skip_folder(name) is None:
                try:
                    waiting.append((f"{name}/", _listing(entry.path)))
                except OSError:
                    continue  # the walk reports the error


def _file(
    scan: _Scan, name: str, entry: os.DirEntry[str], sidecars: frozenset[str]
) -> Iterator[SourceEvent]:
    linked = entry.is_symlink()
    if linked and entry.is_dir():
        yield _linked_folder(scan, name, entry.path)
        return
    if why := scan.rules.skip_file(name):
        yield Ignored(why, suffix=extension(entry.name))
        return
    target = _image_behind(scan, entry.path) if linked else None
    if target is None:
        yield from _image(scan, name, name, sidecars)
    elif target and scan.lists:
        yield from _image(scan, name, target, frozenset())
    else:
        yield Ignored(Skip.OTHER_NAME)


def _image_behind(scan: _Scan, path: str) -> str | None:
    """Return the target of a link, if it is in the corpus under its own name.

    Returns:
        the path of the image relative to this source; empty if it is in another source; None if
        the link is its only name in the corpus, or its target does not exist.
    """
    real = os.path.realpath(path)
    if not os.path.isfile(real):  # noqa: PTH113  # names may hold bytes that are no UTF-8
        return None
    if is_inside(real, scan.root):
        name = real[len(scan.root.rstrip("/")) + 1 :]
        return name if scan.rules.skip_path(name) is None else None
    elsewhere = any(is_inside(real, root) for root in scan.roots if root != scan.root)
    return "" if elsewhere and scan.rules.skip_file(real) is None else None


def _linked_folder(scan: _Scan, name: str, path: str) -> SourceEvent:
    real = os.path.realpath(path)
    if any(real == root or is_inside(real, root) for root in (scan.root, *scan.roots)):
        return Ignored(Skip.LINKED_FOLDER)
    return _reject(scan, name, ItemError(Reason.UNSAFE_PATH, "a link points outside the folder"))


# Archives


def _members(scan: _Scan, names: Sequence[str]) -> Iterator[SourceEvent]:
    """Yield the events of the members of an archive."""
    kept = [name for name in names if scan.rules.skip_path(name) in (None, Skip.NOT_AN_IMAGE)]
    images = [name for name in kept if scan.rules.skip_path(name) is None]
    there = frozenset(kept)
    # An archive with a single folder has its captions in this folder.
    tops = {name.partition("/")[0] for name in kept}
    root = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in kept) else ""
    folders = {name.removesuffix(last) for name in kept if (last := _last(name)) in _ALL_LISTS}
    for below in sorted(folders):
        files = (name[len(below) :] for name in images if name.startswith(below))
        captions = _open_list(scan, below, there, files, is_root=below == root)
        if captions is not None:
            scan.lists.append(captions)
    sidecars, lists = _sidecars(scan, there), {captions.file for captions in scan.lists}
    yield Expected(len(images))
    for name in sorted(names, key=os.fsencode):
        if name in sidecars or name in lists:
            continue
        if why := scan.rules.skip_path(name):
            yield Ignored(why, suffix=extension(name))
            continue
        yield from _image(scan, name, name, sidecars)
    for captions in scan.lists:
        yield from captions.listed.summary()


# Both


def _open_list(
    scan: _Scan,
    below: str,
    there: AbstractSet[str],
    files: Iterator[str],
    *,
    is_root: bool | None = None,
) -> _Captions | None:
    """Return the caption list of a folder, if it has one.

    Args:
        scan: the source.
        below: the relative path of the folder with a slash, or empty.
        there: names in the folder (and possibly others), relative to the source.
        files: the images in the folder, relative to it; read only if there is a list.
        is_root: whether ``captions.*`` is read here; None for only at the root of the source.
    """
    wanted = (_ROOT_LISTS if (not below if is_root is None else is_root) else ()) + _LISTS
    for file in (below + one for one in wanted if below + one in there):
        where = scan.place.uri(file)
        try:
            data = scan.place.find(file).read()
        except ItemError as error:
            raise DataError(f"{where}: {error.detail}") from error
        # Other programs also write files with such names.
        if _last(file) in _ROOT_LISTS or names_images(data, where):
            listed = parse_captions(data, where)
            return _Captions(file, below, listed, match_names(listed.images, files))
    return None


def _image(scan: _Scan, name: str, image: str, sidecars: frozenset[str]) -> Iterator[SourceEvent]:
    """Return an image; ``name`` is its name in a list, which can be a link to it."""
    described = scan.described(name)
    captions = None if described is None else described.captions
    if described is None:
        described = Described()
        if (sidecar := stem(name) + _TEXT) in sidecars:
            captions = yield from _read_sidecar(scan, sidecar)
    if scan.split is not None and described.split != scan.split:
        yield Ignored(Skip.OTHER_SPLIT)
        return
    if name != image and not captions:
        yield Ignored(Skip.OTHER_NAME)
        return
    yield from image_events(
        scan.place,
        Listed(
            image_id=id_part(image),
            name=image,
            captions=captions,
            split=described.split,
            metadata=described.metadata,
            sidecar=next((one for one in _xmp_names(image) if one in sidecars), ""),
            is_video=scan.rules.is_video(image),
        ),
    )


def _read_sidecar(scan: _Scan, name: str) -> Generator[SourceEvent, None, list[str] | None]:
    """Return the lines of the caption file of an image; an unusable file is ignored."""
    try:
        text = scan.place.find(name).read().decode("utf-8-sig")
    except (ItemError, UnicodeDecodeError):
        yield Note(NoteKind.UNREADABLE_CAPTION_FILES)
        return None
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line.strip()]


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _sidecars(scan: _Scan, there: AbstractSet[str]) -> frozenset[str]:
    """Return the ``.txt`` and ``.xmp`` files with the name of an image."""
    return frozenset(
        sidecar
        for name in there
        if extension(name) not in (_TEXT, *_XMP) and scan.rules.skip_file(name) is None
        for sidecar in (stem(name) + _TEXT, *_xmp_names(name))
        if sidecar in there
    )


def _xmp_names(name: str) -> Iterator[str]:
    """Return the possible names of the XMP sidecar of an image, the most specific first.

    darktable and digiKam write ``IMG_1.jpg.xmp``; Adobe programs write ``IMG_1.xmp``.
    """
    for base in (name, stem(name)):
        yield from (base + suffix for suffix in _XMP)


def _reject(scan: _Scan, name: str, error: ItemError) -> Rejected:
    return Rejected(id_part(name), scan.place.uri(name), error.reason, error.detail)


KIND: Final = Kind(
    name="folder",
    place=Place.FOLDER_OR_ARCHIVE,
    form="PATH[#SPLIT]",
    example="folder:~/Pictures",
    summary="images in a folder and its subfolders, or in a zip or tar; captions from lists or "
    "`.txt` files",
    read=read_folder,
    globs=True,
    objects=True,
    tree=folder_tree,
    spreads=True,
)
