"""From a row's ``uri`` back to its bytes, wherever they lie.

What a URI looks like:

- an absolute path;
- ``ARCHIVE.zip!MEMBER``, ``ARCHIVE.tar!MEMBER``, ``FILE.parquet!COLUMN/ROW``;
- ``file://`` with percent-encoding, for a path whose bytes are no valid UTF-8 (``!`` and what
  stands inside it follow as above).

Decode workers are spawned with this module, so it imports little: Arrow only where it is needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from mmindex.core.errors import DataError, NoInputError, PermissionDeniedError
from mmindex.core.records import ItemError, Reason
from mmindex.media import archive, tars

DEFAULT_MAX_BYTES: Final = 256 * 1024 * 1024
_PARQUET_MARK: Final = ".parquet!"
_MARKS: Final = (archive.MARK, tars.MARK, _PARQUET_MARK)


def read_uri(uri: str, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
    """Read the bytes that a row's ``uri`` names.

    An archive that is gone or damaged costs the item, not the run: the crawl, which reads whole
    archives, is where a bad one stops everything.

    Args:
        uri: as the crawl made it.
        max_bytes: more than this is refused before reading.

    Raises:
        ItemError: the file or member is missing, unreadable, too large or damaged.
        StorageError: the machine is out of memory or file descriptors, or the disk fails.
    """
    path, inside = split_uri(uri)
    if inside is None:
        return archive.read_file(path, max_bytes)
    try:
        return _read_inside(path, inside, max_bytes)
    except NoInputError as error:
        raise ItemError(Reason.MISSING, error.message) from error
    except PermissionDeniedError as error:
        raise ItemError(Reason.UNREADABLE, error.message) from error
    except DataError as error:
        raise ItemError(Reason.BAD_ARCHIVE_MEMBER, error.message) from error


def _read_inside(path: str, inside: str, max_bytes: int) -> bytes:
    suffix = Path(path).suffix.lower()
    if suffix == ".parquet":
        from mmindex.media.parquet_cells import read_cell, split_cell

        column, row = split_cell(inside)
        return read_cell(path, column, row, max_bytes)
    if suffix == ".tar":
        return tars.read_tar_member(path, inside, max_bytes)
    return archive.read_member(path, inside, max_bytes)


def split_uri(uri: str) -> tuple[str, str | None]:
    """The path, and what is meant inside it; a mark counts where a file ends in it."""
    if uri.startswith(archive.FILE_SCHEME):
        # A quoted path holds no "!", so the first one is the separator.
        quoted, mark, inside = uri[len(archive.FILE_SCHEME) :].partition("!")
        return os.fsdecode(unquote_to_bytes(quoted)), inside if mark else None
    lowered = uri.lower()
    at = lowered.find("!")
    while at >= 0:
        if lowered[: at + 1].endswith(_MARKS) and Path(uri[:at]).is_file():
            return uri[:at], uri[at + 1 :]
        at = lowered.find("!", at + 1)
    return uri, None
