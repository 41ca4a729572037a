"""Images inside tar archives, read in place: ``FILE.tar!MEMBER``.

The URI of a member of an object ends in its bytes, ``s3://BUCKET/KEY.tar!MEMBER#bytes=512-9215``,
so that it is read with one request, without the headers of the archive.

Only the headers are read with :mod:`tarfile`, and nothing is extracted, so a member cannot write
files. Contents are read by offset. tar has no checksums of contents.
"""

from __future__ import annotations

import functools
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from mmindex.core.errors import DataError, os_errors
from mmindex.core.records import ItemError, Reason, Stamp
from mmindex.media.archive import id_part, uri_of_member
from mmindex.media.buckets import read_range
from mmindex.media.files import is_remote, open_file, stamp_of
from mmindex.media.places import Found, check_relative, spellings

MARK: Final = ".tar!"
# An index has a name and two numbers per member: about 30 MB for the largest usual shards.
_KEPT_INDEXES: Final = 4
# tarfile reads long names and pax headers completely; real ones are much smaller than this.
_MAX_HEADER_BYTES: Final = 1 << 20
# An empty member ends before it starts.
_RANGE: Final = re.compile(r"(.*)#bytes=([0-9]{1,15})-([0-9]{1,15})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar archive.

    Attributes:
        name: the name in the archive.
        offset: the offset of the first byte.
        size: in bytes.
        problem: why it must not be read, or None.
    """

    name: str
    offset: int
    size: int
    problem: ItemError | None = None


class _Headers:
    """A file object for tarfile that rejects reads that only hostile headers cause."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def uri_of_tar_member(path: str, member: Member) -> str:
    """Return the URI of a member of the archive at ``path``."""
    uri = uri_of_member(path, member.name)
    if not is_remote(path):
        return uri
    return f"{uri}#bytes={member.offset}-{member.offset + member.size - 1}"


def split_range(name: str) -> tuple[str, range | None]:
    """Split what follows the mark in the URI of an object into the member and its bytes."""
    found = _RANGE.fullmatch(name)
    if found is None:
        return name, None
    return found[1], range(int(found[2]), int(found[3]) + 1)


def walk_tar(path: str) -> Iterator[Member]:
    """Yield the members of an archive in order, without folders.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the archive cannot be read.
        DataError: it is not a tar archive, compressed, damaged, or truncated.
    """
    try:
        with os_errors(path), open_file(path) as file:
            total = stamp_of(path)[0]
            # Only uncompressed archives: members of compressed ones cannot be read by offset.
            with tarfile.open(fileobj=_Headers(file), mode="r:") as archive:  # type: ignore[call-overload]  # it reads, seeks and tells: all that tarfile needs
                for info in archive:
                    archive.members = []  # otherwise tarfile keeps every header in memory
                    if not info.isdir():
                        yield _member(info, total, path)
                _check_end(file, archive.offset, path)
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise DataError(
            f"{path}: not a readable uncompressed tar archive: {error}",
            "fetch or copy it again; if it is compressed, unpack it with gunzip or zstd first",
        ) from error


def _check_end(file: BinaryIO, offset: int, path: str) -> None:
    """Detect damaged headers, which tarfile accepts as the end of the archive."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0") or 0 < len(block) < tarfile.BLOCKSIZE:
        raise DataError(f"{path}: damaged or truncated at byte {offset}", "fetch or copy it again")


def _member(info: tarfile.TarInfo, total: int, path: str) -> Member:
    if info.offset_data + info.size > total and info.isreg():
        raise DataError(f"{path}: truncated inside {info.name!r}", "fetch or copy it again")
    problem = None
    if not info.isreg():
        problem = ItemError(Reason.UNSAFE_PATH, "the member is a link or device, not a file")
    elif id_part(info.name) != info.name:
        problem = ItemError(Reason.BAD_ARCHIVE_MEMBER, "the name of the member is not UTF-8")
    elif info.issparse():
        problem = ItemError(Reason.BAD_ARCHIVE_MEMBER, "a sparse member")
    else:
        try:
            check_relative(info.name)
        except ItemError as error:
            problem = error
    return Member(info.name, info.offset_data, info.size, problem)


@functools.lru_cache(maxsize=_KEPT_INDEXES)
def _index(path: str, stamp: Stamp) -> dict[str, Member]:  # noqa: ARG001  # the stamp is part of the cache key
    index: dict[str, Member] = {}
    for member in walk_tar(path):
        if member.name in index:
            twice = ItemError(Reason.BAD_ARCHIVE_MEMBER, "the name occurs twice in the archive")
            member = Member(member.name, 0, 0, twice)  # noqa: PLW2901
        index[member.name] = member
    return index


@dataclass(frozen=True, slots=True)
class ImageTar:
    """Images in an uncompressed tar archive."""

    path: str
    max_bytes: int

    def uri(self, name: str) -> str:
        """The URI that ``name`` has, whether or not it is there."""
        return uri_of_member(self.path, name)

    def find(self, name: str) -> Found:
        """Find an image by its name.

        Raises:
            ItemError: the member is missing, or must not be read.
            MmindexError: as :func:`walk_tar`.
        """
        stamp = stamp_of(self.path)
        index = _index(self.path, stamp)
        # `tar -c .` writes "./" before every name.
        candidates = (start + spelt for spelt in spellings(name) for start in ("", "./"))
        spelt = next((one for one in candidates if one in index), name)
        member = index.get(spelt)
        if member is None:
            raise ItemError(Reason.MISSING, "no such member in the archive")
        if member.problem is not None:
            raise member.problem
        read = functools.partial(read_at, self.path, member, self.max_bytes)
        return Found(uri_of_tar_member(self.path, member), read, stamp)

    def names(self) -> list[str]:
        """Return the sorted names of all members except folders, without a leading "./"."""
        index = _index(self.path, stamp_of(self.path))
        return sorted({name.removeprefix("./") for name in index})


def read_tar_member(path: str, name: str, max_bytes: int) -> bytes:
    """Read a whole member of a tar archive.

    Args:
        path: the absolute path of the archive.
        name: the name of the member.
        max_bytes: the size limit.

    Raises:
        ItemError: it is missing, not a plain file, repeated, or too large.
        MmindexError: as :func:`walk_tar`.
    """
    name, known = split_range(name) if is_remote(path) else (name, None)
    if known is not None:
        # Whoever opens an indexed image compares its key, which tells whether the archive changed.
        return _read_bytes(path, known, max_bytes)
    member = _index(path, stamp_of(path)).get(name)
    if member is None:
        raise ItemError(Reason.MISSING, "no such member in the archive")
    return read_at(path, member, max_bytes)


def _read_bytes(path: str, known: range, max_bytes: int) -> bytes:
    if len(known) > max_bytes:
        raise ItemError(Reason.TOO_LARGE, f"{len(known)} bytes, the limit is {max_bytes}")
    data = read_range(path, known.start, len(known))
    if len(data) != len(known):
        raise ItemError(Reason.CHANGED, f"{len(data)} bytes, the archive had {len(known)}")
    return data


def read_at(path: str, member: Member, max_bytes: int) -> bytes:
    """Read a member from :func:`walk_tar`.

    Raises:
        ItemError: it must not be read, or is too large.
        MmindexError: the archive cannot be read.
    """
    if member.problem is not None:
        raise member.problem
    if member.size > max_bytes:
        raise ItemError(Reason.TOO_LARGE, f"{member.size} bytes, the limit is {max_bytes}")
    with os_errors(path), open_file(path) as file:
        file.seek(member.offset)
        data = file.read(member.size)
    if len(data) != member.size:
        raise ItemError(Reason.CHANGED, f"{len(data)} bytes, the archive listed {member.size}")
    return data
