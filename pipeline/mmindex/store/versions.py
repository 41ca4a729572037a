"""Versions of a store: open, read, publish as CURRENT + 1 or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mmindex.errors import (
    CannotCreateError,
    DataError,
    InternalError,
    ModelMismatchError,
    NoInputError,
    UsageError,
    from_os_error,
    os_errors,
)
from mmindex.store import publish
from mmindex.store.layout import FORMAT, Layout
from mmindex.store.manifest import Current, Manifest, decode_manifest, encode_manifest

if TYPE_CHECKING:  # `mmindex status` reads versions without paying for pyarrow
    from mmindex.store.objects import Objects

_VERSION_NAME = re.compile(r"[0-9]{20}")  # as Layout.version writes it


def open_layout(root: Path) -> Layout:
    """Open an existing store for reading.

    Raises:
        NoInputError: there is no store at ``root``.
        ModelMismatchError: the store has a newer format than this program knows.
    """
    layout = _layout(root)
    with os_errors(layout.root):
        # A damaged file may hold anything: it must read as a format that nobody knows.
        found = (
            layout.format_file.read_text("ascii", "backslashreplace")
            if layout.format_file.exists()
            else None
        )
    if found is None:
        raise NoInputError(f"{root}: no mmindex store there", "run `mmindex build` first")
    if found.strip() != FORMAT:
        raise ModelMismatchError(
            f"{root}: store format {found.strip()[:20]!r}, this mmindex reads {FORMAT!r}",
            "use the mmindex that made it, or another --store",
        )
    return layout


def create_layout(root: Path) -> Layout:
    """Open a store for writing, creating it where there is none.

    Raises:
        MmindexError: the folder cannot be made or written (found out now, before any work).
    """
    layout = _layout(root)
    if layout.format_file.exists():
        open_layout(root)
    with os_errors(layout.root):
        _refuse_foreign(layout)
        try:
            for directory in layout.directories:
                publish.make_directory(directory)
        except (NotADirectoryError, FileNotFoundError, NoInputError) as error:
            raise CannotCreateError(
                f"{layout.root}: cannot be created", "choose another --store"
            ) from error
        if not os.access(layout.root, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(layout.root))
    if not layout.format_file.exists():
        publish.write_file(layout, layout.format_file, f"{FORMAT}\n".encode())
    return layout


def _layout(root: Path) -> Layout:
    layout = Layout(root.absolute())
    try:
        str(layout.root).encode("utf-8")
    except UnicodeEncodeError as error:  # Arrow opens files by UTF-8 names only
        raise UsageError(
            f"{root}: a store's path must be valid UTF-8", "choose another --store"
        ) from error
    return layout


def _refuse_foreign(layout: Layout) -> None:
    """A folder with other things in it is no place for a store; a killed first run's is."""
    if layout.root.exists() and not layout.root.is_dir():
        raise CannotCreateError(f"{layout.root}: not a folder", "choose another --store")
    if layout.format_file.exists() or not layout.root.exists():
        return
    ours = {path.name for path in (*layout.directories, layout.lock_file)}
    if any(entry.name not in ours for entry in layout.root.iterdir()):
        raise CannotCreateError(
            f"{layout.root}: not empty and not an mmindex store", "choose another --store"
        )


def read_current_pointer(layout: Layout) -> Current | None:
    """What CURRENT says, or None where nothing was published yet.

    A first publish that was killed before its commit point leaves the manifest of version 1
    without CURRENT: that is "nothing published", not damage.

    Raises:
        DataError: CURRENT is damaged, or missing although later versions exist.
    """
    repair = "run `mmindex check --repair` to point it at the newest valid version"
    try:
        data = layout.current_file.read_bytes()
    except FileNotFoundError:
        if list_versions(layout) in ([], [1]):
            return None
        raise DataError(f"{layout.current_file}: missing", repair) from None
    except OSError as error:
        raise from_os_error(error, layout.current_file) from error
    try:
        return msgspec.json.decode(data, type=Current)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{layout.current_file}: damaged: {error}", repair) from error


def read_current(layout: Layout) -> Manifest | None:
    """The published version, or None where there is none yet.

    Raises:
        DataError: CURRENT or the manifest is damaged.
    """
    pointer = read_current_pointer(layout)
    return None if pointer is None else read_current_checked(layout, pointer)


def read_current_checked(layout: Layout, pointer: Current) -> Manifest:
    """The manifest that ``pointer`` names, with the sha256 that it names.

    Raises:
        DataError: the manifest is missing or damaged.
    """
    return _read(layout, pointer.version, pointer.manifest_sha256)


def read_version(layout: Layout, number: int) -> Manifest:
    """The manifest of one version.

    Raises:
        NoInputError: there is no such version.
    """
    if number not in list_versions(layout):
        raise NoInputError(f"{layout.root}: no version {number}", "run `mmindex versions`")
    return _read(layout, number, None)


def _read(layout: Layout, number: int, sha256: str | None) -> Manifest:
    path = layout.version(number)
    try:
        with os_errors(path):
            data = path.read_bytes()
    except NoInputError as error:
        raise DataError(f"{path}: missing", "run `mmindex check --repair`") from error
    manifest = decode_manifest(data, sha256, str(path))
    if manifest.version != number:
        raise DataError(f"{path}: holds version {manifest.version}", "run `mmindex check`")
    return manifest


def list_versions(layout: Layout) -> list[int]:
    """The numbers of the manifests present, ascending."""
    with os_errors(layout.versions_dir):
        names = [path.stem for path in layout.versions_dir.glob("*.json")]
    # Whatever else lies there (a copy made by hand, for example) is no version.
    return sorted(int(name) for name in names if _VERSION_NAME.fullmatch(name))


def remove_leftovers(layout: Layout) -> None:
    """Under the lock, before any work: remove what a killed run left.

    Manifests above CURRENT were never committed; staged files never got their name. Objects stay:
    finished embedding shards among them are taken up again.
    """
    current = current_number(layout)
    for number in list_versions(layout):
        if number > current:
            publish.remove_file(layout.version(number))
    publish.empty_directory(layout.staging_dir)


def current_number(layout: Layout) -> int:
    """The published version's number; 0 before the first publish."""
    pointer = read_current_pointer(layout)
    return 0 if pointer is None else pointer.version


def publish_version(objects: Objects, manifest: Manifest) -> None:
    """Publish ``manifest`` as the store's next version: verify, the manifest, then CURRENT.

    Objects that the parent does not have are read back and hashed; the rest must be there with
    their size.

    Raises:
        InternalError: the version is not CURRENT + 1, or its counts do not balance.
        DataError: an object is missing or damaged.
    """
    layout = objects.layout
    parent = read_current(layout)
    inherited = {ref.sha256 for ref in parent.objects} if parent else set()
    for ref in manifest.objects:
        (objects.unverified_path if ref.sha256 in inherited else objects.path)(ref)
    if manifest.version != (parent.version if parent else 0) + 1:
        raise InternalError(f"version {manifest.version} is not the next one")
    data = encode_manifest(manifest)
    publish.write_file(layout, layout.version(manifest.version), data)
    point_current_at(layout, manifest.version, data)


def point_current_at(layout: Layout, number: int, data: bytes) -> None:
    """Replace CURRENT: the commit point.

    Args:
        layout: the store, locked by this process.
        number: the version.
        data: its manifest's bytes as they stand on disk.
    """
    pointer = Current(version=number, manifest_sha256=hashlib.sha256(data).hexdigest())
    publish.write_file(layout, layout.current_file, msgspec.json.encode(pointer) + b"\n")
