"""Open, read and publish versions; a version is published as CURRENT + 1 or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mmindex.core.errors import (
    CannotCreateError,
    DataError,
    InternalError,
    ModelMismatchError,
    NoInputError,
    UsageError,
    from_os_error,
    os_errors,
)
from mmindex.core.system import require_stores
from mmindex.store import publish
from mmindex.store.layout import FORMAT, Layout
from mmindex.store.lock import writer_lock
from mmindex.store.manifest import Current, Manifest, decode_manifest, encode_manifest

if TYPE_CHECKING:  # `mmindex status` reads versions without importing pyarrow
    from mmindex.store.objects import Objects

_VERSION_NAME = re.compile(r"[0-9]{20}")  # the number of digits, as in Layout.version
_FORMAT = re.compile(rb"[0-9]{1,9}\n")


def open_layout(root: Path) -> Layout:
    """Open an existing store for reading.

    Raises:
        NoInputError: there is no store at ``root``.
        DataError: FORMAT is missing or damaged.
        ModelMismatchError: the store has a newer format than this program supports.
    """
    layout = _layout(root)
    path = layout.format_file
    repair = "run `mmindex check --repair`"
    with os_errors(layout.root):
        found = path.read_bytes() if path.exists() else None
    if found is None:
        if list_versions(layout):
            raise DataError(f"{path}: missing", repair)
        raise NoInputError(f"{root}: no mmindex store found", "run `mmindex build` first")
    if not _FORMAT.fullmatch(found):
        raise DataError(f"{path}: damaged", repair)
    if found.decode().strip() != FORMAT:
        raise ModelMismatchError(
            f"{path}: store format {found.decode().strip()}, but this mmindex reads {FORMAT}",
            "use the mmindex version that created it, or another `store`",
        )
    return layout


def create_layout(root: Path) -> Layout:
    """Open a store for writing, and create it if there is none.

    Raises:
        MmindexError: the folder cannot be created or written; checked here, before any work.
    """
    layout = _layout(root)
    if layout.format_file.exists() or list_versions(layout):
        open_layout(root)
    with os_errors(layout.root):
        _refuse_foreign(layout)
        try:
            for directory in layout.directories:
                publish.make_directory(directory)
        except (NotADirectoryError, FileNotFoundError, NoInputError) as error:
            raise CannotCreateError(
                f"{layout.root}: cannot be created", "choose another `store`"
            ) from error
        if not os.access(layout.root, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(layout.root))
    if not layout.format_file.exists():
        with writer_lock(layout):
            _begin(layout)
    return layout


def _begin(layout: Layout) -> None:
    """Make an empty folder a store, under the lock, because several first runs may compete.

    CURRENT is written before FORMAT: a store without CURRENT is damaged, not empty.
    """
    if layout.format_file.exists():
        return
    if not layout.current_file.exists():
        nothing = Current(version=0, manifest_sha256="")
        publish.write_file(layout, layout.current_file, msgspec.json.encode(nothing) + b"\n")
    publish.write_file(layout, layout.format_file, f"{FORMAT}\n".encode())


def _layout(root: Path) -> Layout:
    require_stores()
    layout = Layout(root.absolute())
    try:
        str(layout.root).encode("utf-8")
    except UnicodeEncodeError as error:  # Arrow opens files only by UTF-8 names
        raise UsageError(
            f"{root}: a store's path must be valid UTF-8", "choose another `store`"
        ) from error
    return layout


def _refuse_foreign(layout: Layout) -> None:
    """Raise an error for a folder with other contents, except those of a killed first run."""
    if layout.root.exists() and not layout.root.is_dir():
        raise CannotCreateError(f"{layout.root}: not a folder", "choose another `store`")
    if layout.format_file.exists() or not layout.root.exists():
        return
    made = (*layout.directories, layout.lock_file, layout.current_file)
    ours = {path.name for path in made}
    foreign = any(entry.name not in ours for entry in layout.root.iterdir())
    # Another first run may have made it a store since the check above.
    if foreign and not layout.format_file.exists():
        raise CannotCreateError(
            f"{layout.root}: not empty and not an mmindex store", "choose another `store`"
        )


def read_current_pointer(layout: Layout) -> Current | None:
    """Read CURRENT; None if nothing was published yet.

    CURRENT exists from the creation of a store. If it is damaged or missing, nothing was published
    only if there is no manifest at all.

    Raises:
        DataError: CURRENT is damaged or missing although versions exist.
    """
    try:
        pointer = _decode_pointer(layout)
    except DataError:
        if not list_versions(layout):
            return None
        raise
    return pointer if pointer.version else None


def _decode_pointer(layout: Layout) -> Current:
    path = layout.current_file
    repair = "run `mmindex check --repair` to set it to the newest valid version"
    try:
        pointer = msgspec.json.decode(path.read_bytes(), type=Current)
    except FileNotFoundError:
        raise DataError(f"{path}: missing", repair) from None
    except OSError as error:
        raise from_os_error(error, path) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged: {error}", repair) from error
    if not pointer.plausible:
        raise DataError(f"{path}: damaged: version and sha256 do not match", repair)
    return pointer


def digest_in_current(layout: Layout) -> str:
    """Return the manifest's sha256 from CURRENT; empty if it cannot be read."""
    try:
        return _decode_pointer(layout).manifest_sha256
    except DataError:
        return ""


def read_current(layout: Layout) -> Manifest | None:
    """Read the published version; None if there is none yet.

    Raises:
        DataError: CURRENT or the manifest is damaged.
    """
    pointer = read_current_pointer(layout)
    while pointer is not None:
        try:
            return read_current_checked(layout, pointer)
        except DataError:
            # Another process may have published and collected since CURRENT was read.
            again = read_current_pointer(layout)
            if again == pointer:
                raise
            pointer = again
    return None


def read_current_checked(layout: Layout, pointer: Current) -> Manifest:
    """Read the manifest that ``pointer`` names and verify its sha256.

    Raises:
        DataError: the manifest is missing or damaged.
    """
    return _read(layout, pointer.version, pointer.manifest_sha256)


def read_version(layout: Layout, number: int) -> Manifest:
    """Read the manifest of one version.

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
        named = "" if sha256 is None else f", although {layout.current_file} names it"
        raise DataError(f"{path}: missing{named}", "run `mmindex check --repair`") from error
    return checked(layout, number, data, sha256)


def checked(layout: Layout, number: int, data: bytes, sha256: str | None) -> Manifest:
    """Decode ``data`` and check that it is the manifest of version ``number``.

    Raises:
        DataError: its sha256 is not ``sha256`` (from CURRENT), or it has another number, or is not
            a manifest.
    """
    path = layout.version(number)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(
            f"{path}: damaged, or {layout.current_file} is (sha256 differs)",
            "run `mmindex check --repair`",
        )
    manifest = decode_manifest(data, str(path))
    if manifest.version != number:
        raise DataError(f"{path}: contains version {manifest.version}", "run `mmindex check`")
    return manifest


def list_versions(layout: Layout) -> list[int]:
    """Return the numbers of the manifests present, ascending."""
    with os_errors(layout.versions_dir):
        names = [path.stem for path in layout.versions_dir.glob("*.json")]
    # Other files (a manual copy, for example) are not versions.
    return sorted(int(name) for name in names if _VERSION_NAME.fullmatch(name))


def publish_version(objects: Objects, manifest: Manifest) -> Manifest:
    """Publish ``manifest`` as the store's next version: verify, write the manifest, then CURRENT.

    New objects are read back and hashed; objects that the parent also has must exist with their
    size.

    Returns:
        The manifest as published, with the digest of its parent's manifest.

    Raises:
        InternalError: the version is not CURRENT + 1, or its counts do not balance.
        DataError: an object is missing or damaged.
    """
    layout = objects.layout
    pointer = read_current_pointer(layout)
    parent = None if pointer is None else read_current_checked(layout, pointer)
    inherited = {ref.sha256 for ref in parent.objects} if parent else set()
    for ref in manifest.objects:
        (objects.unverified_path if ref.sha256 in inherited else objects.path)(ref)
    if manifest.version != (parent.version if parent else 0) + 1:
        raise InternalError(f"version {manifest.version} is not the next one")
    published = msgspec.structs.replace(
        manifest, parent_sha256=pointer.manifest_sha256 if pointer else None
    )
    data = encode_manifest(published)
    publish.write_file(layout, layout.version(manifest.version), data)
    point_current_at(layout, manifest.version, data)
    return published


def point_current_at(layout: Layout, number: int, data: bytes) -> None:
    """Replace CURRENT: the commit point.

    Args:
        layout: the store, locked by this process.
        number: the version number.
        data: its manifest's bytes as stored on disk.
    """
    pointer = Current(version=number, manifest_sha256=hashlib.sha256(data).hexdigest())
    publish.write_file(layout, layout.current_file, msgspec.json.encode(pointer) + b"\n")
