"""Images inside tar archives, read in place: ``FILE.tar!MEMBER``.

Only the headers are read with :mod:`tarfile`, and nothing is extracted, so a member cannot write
files. Contents are read by offset. tar has no checksums of contents.
"""

from __future__ import annotations

import functools
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from mmindex.core.errors import DataError, os_errors
from mmindex.core.records import ItemError, Reason, Stamp
from mmindex.media.archive import id_part, uri_of_member
from mmindex.media.places import Found, check_relative, spellings

MARK: Final = ".tar!"
# An index has a name and two numbers per member: about 30 MB for the largest usual shards.
_KEPT_INDEXES: Final = 4
# tarfile reads long names and pax headers completely; real ones are much smaller than this.
_MAX_HEADER_BYTES: Final = 1 << 20


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


def walk_tar(path: str) -> Iterator[Member]:
    """Yield the members of an archive in order, without folders.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the archive cannot be read.
        DataError: it is not a tar archive, compressed, damaged, or truncated.
    """
    try:
        with os_errors(path), Path(path).open("rb") as file:
            total = os.fstat(file.fileno()).st_size
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

    path: Path
    max_bytes: int

    def uri(self, name: str) -> str:
        """The URI that ``name`` has, whether or not it is there."""
        return uri_of_member(str(self.path), name)

    def find(self, name: str) -> Found:
        """Find an image by its name.

        Raises:
            ItemError: the member is missing, or must not be read.
            MmindexError: as :func:`walk_tar`.
        """
        stamp = _stamp(str(self.path))
        index = _index(str(self.path), stamp)
        # `tar -c .` writes "./" before every name.
        candidates = (start + spelt for spelt in spellings(name) for start in ("", "./"))
        spelt = next((one for one in candidates if one in index), name)
        member = index.get(spelt)
        if member is None:
            raise ItemError(Reason.MISSING, "no such member in the archive")
        if member.problem is not None:
            raise member.problem
        read = functools.partial(read_at, str(self.path), member, self.max_bytes)
        return Found(self.uri(spelt), read, stamp)

    def names(self) -> list[str]:
        """Return the sorted names of all members except folders, without a leading "./"."""
        index = _index(str(self.path), _stamp(str(self.path)))
        return sorted({name.removeprefix("./") for name in index})


def _stamp(path: str) -> Stamp:
    with os_errors(path):
        status = Path(path).stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


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
    member = _index(path, _stamp(path)).get(name)
    if member is None:
        raise ItemError(Reason.MISSING, "no such member in the archive")
    return read_at(path, member, max_bytes)


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
    with os_errors(path), Path(path).open("rb") as file:
        file.seek(member.offset)
        data = file.read(member.size)
    if len(data) != member.size:
        raise ItemError(Reason.CHANGED, f"{len(data)} bytes, the archive listed {member.size}")
    return data
