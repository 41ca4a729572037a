"""Read image files in place: plain files, and members of zip archives.

Nothing is extracted, so an archive cannot write files.
"""

from __future__ import annotations

import errno
import functools
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Final
from urllib.parse import quote_from_bytes

from mmindex.core.errors import DataError, from_os_error, os_errors
from mmindex.core.records import ItemError, Reason, Stamp
from mmindex.media.buckets import read_object
from mmindex.media.files import is_remote, open_file, stamp_of, uri_of_location

MARK: Final = ".zip!"
# Open archives per process: COCO has two splits, and a sharded corpus is read in order.
_OPEN_ARCHIVES: Final = 8
# Deflate ends at 1032:1; photographs stay below 2:1, drawn scenes and scans below 100:1.
_MAX_RATIO: Final = 200
_RATIO_FLOOR_BYTES: Final = 1 << 20  # smaller members are harmless at any compression ratio
_LOCAL_HEADER_BYTES: Final = 30  # fixed part of a local file header (APPNOTE.TXT, 4.3.7)
_FLAG_ENCRYPTED: Final = 0x1

# These errors mean that the machine lacks a resource, not that the file is damaged.
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_MEMBER_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    OverflowError,
    struct.error,
)


def id_part(name: str) -> str:
    """Return a name for ids; a name that is not UTF-8 is completely percent-encoded."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return quote_from_bytes(os.fsencode(name), safe="/ ")
    return name


def uri_of_member(archive: str, member: str) -> str:
    """Return the URI of a member of an archive, given its location."""
    return f"{uri_of_location(archive)}!{member}"


def read_file(path: str, max_bytes: int) -> bytes:
    """Read a whole regular file, or an object of an object store.

    Raises:
        ItemError: it is missing, unreadable, not a regular file, or larger than ``max_bytes``.
        MmindexError: the object store cannot be reached or refuses access.
    """
    if is_remote(path):
        return read_object(path, max_bytes)
    try:
        # Non-blocking, so that a named pipe with the name of an image cannot block the run.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ItemError(Reason.UNREADABLE, "not a regular file")
            if status.st_size > max_bytes:
                raise _too_large(status.st_size, max_bytes)
            # Python would reserve max_bytes of memory for a small file.
            data = file.read(status.st_size + 1)
            if len(data) > status.st_size:  # it has grown
                data += file.read(max_bytes + 1 - len(data))
    except OSError as error:
        raise item_error(error, path) from error
    if len(data) > max_bytes:
        raise _too_large(len(data), max_bytes)
    return data


def item_error(error: OSError, path: str) -> ItemError:
    """Convert an OSError about a file to a quarantine reason.

    Raises:
        MmindexError: the machine is out of memory or file descriptors.
    """
    if error.errno in _OUT_OF_RESOURCES:
        raise from_os_error(error, path) from error
    gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
    reason = Reason.MISSING if gone else Reason.UNREADABLE
    return ItemError(reason, error.strerror or type(error).__name__)


def _too_large(size: int, limit: int) -> ItemError:
    return ItemError(Reason.TOO_LARGE, f"{size} bytes, the limit is {limit}")


@dataclass(frozen=True, slots=True)
class ZipIndex:
    """The table of contents of an open archive.

    Attributes:
        file: the archive.
        members: files by name, without folders; for a repeated name, the last one.
        hostile: why a member must not be read, by name: repeated or overlapping members.
        stamp: identifies the archive.
    """

    file: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    hostile: dict[str, str]
    stamp: Stamp


def open_zip(path: str) -> ZipIndex:
    """Return the table of contents of an archive; it stays open until the file changes.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the archive cannot be read.
        DataError: it is not a zip file, or its table of contents is damaged.
    """
    return _open_zip(path, stamp_of(path))


@functools.lru_cache(maxsize=_OPEN_ARCHIVES)
def _open_zip(path: str, stamp: Stamp) -> ZipIndex:
    try:
        with os_errors(path):
            # Given a path, it closes the file itself.
            file = zipfile.ZipFile(open_file(path) if is_remote(path) else path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise DataError(f"{path}: not a readable zip archive: {error}") from error
    infos = file.infolist()
    members = {info.filename: info for info in infos if not info.is_dir()}
    return ZipIndex(file, members, _hostile_members(infos), stamp)


def _hostile_members(infos: list[zipfile.ZipInfo]) -> dict[str, str]:
    """Return repeated names and members with shared bytes (the overlap bomb)."""
    names = Counter(info.filename for info in infos)
    hostile = {
        name: "the name occurs twice in the archive" for name, count in names.items() if count > 1
    }
    ordered = sorted(infos, key=lambda info: info.header_offset)
    for first, second in pairwise(ordered):
        end = first.header_offset + _LOCAL_HEADER_BYTES + first.compress_size
        if end > second.header_offset:
            hostile[first.filename] = hostile[second.filename] = "overlaps another member"
    return hostile


def list_members(path: str) -> list[str]:
    """Return the sorted names of the files in an archive.

    Raises:
        MmindexError: as :func:`open_zip`.
    """
    return sorted(open_zip(path).members)


def read_member(path: str, member: str, max_bytes: int) -> bytes:
    """Read a whole member of a zip archive and check its CRC.

    Raises:
        ItemError: the member is missing, hostile, damaged or larger than ``max_bytes``.
        MmindexError: as :func:`open_zip`.
    """
    index = open_zip(path)
    info = check_member(index, member)
    if info.file_size > max_bytes:
        raise _too_large(info.file_size, max_bytes)
    if info.file_size > max(_RATIO_FLOOR_BYTES, _MAX_RATIO * info.compress_size):
        raise ItemError(
            Reason.BAD_ARCHIVE_MEMBER,
            f"{info.compress_size} bytes would grow to {info.file_size}: over {_MAX_RATIO}:1",
        )
    try:
        with index.file.open(info) as file:
            data = file.read(info.file_size + 1)
    except _MEMBER_ERRORS as error:
        if isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES:
            raise from_os_error(error, path) from error
        raise ItemError(Reason.BAD_ARCHIVE_MEMBER, f"{type(error).__name__}: {error}") from error
    if len(data) != info.file_size:
        raise ItemError(
            Reason.BAD_ARCHIVE_MEMBER, f"{len(data)} bytes, the archive lists {info.file_size}"
        )
    return data


def check_member(index: ZipIndex, member: str) -> zipfile.ZipInfo:
    """Return the entry of a member that can be read.

    Raises:
        ItemError: it is missing, repeated, overlapping, encrypted, or a link.
    """
    info = index.members.get(member)
    if info is None:
        raise ItemError(Reason.MISSING, "no such member in the archive")
    if member in index.hostile:
        raise ItemError(Reason.BAD_ARCHIVE_MEMBER, index.hostile[member])
    if info.flag_bits & _FLAG_ENCRYPTED:
        raise ItemError(Reason.BAD_ARCHIVE_MEMBER, "encrypted")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ItemError(Reason.UNSAFE_PATH, "the member is a link or device, not a file")
    return info
