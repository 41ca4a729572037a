"""Files by location: an absolute path, or an object in an object store.

All code that opens the files of a corpus goes through this module, so it can read both.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO, Final, cast
from urllib.parse import quote_from_bytes, unquote

from mmindex.core.errors import os_errors
from mmindex.core.records import Stamp
from mmindex.media import buckets
from mmindex.media.object_file import ObjectFile
from mmindex.media.services import is_remote

FILE_SCHEME: Final = "file://"
# Otherwise read as the separator of a member, the time of a frame, or an escape.
_SPECIAL: Final = re.compile(r"[%!#\x00-\x1f\x7f]")

__all__ = ["is_remote", "location_of", "open_file", "stamp_of", "uri_of_location"]


def stamp_of(location: str) -> Stamp:
    """Return what identifies the content of a file, see :data:`mmindex.core.records.Stamp`.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the file is not readable.
        MmindexError: the service cannot be reached.
    """
    if is_remote(location):
        return buckets.info(location).stamp
    with os_errors(location):
        status = Path(location).stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def open_file(location: str) -> BinaryIO:
    """Open a file for reading and seeking; raises as :func:`stamp_of`."""
    if is_remote(location):
        return cast("BinaryIO", ObjectFile(location))
    with os_errors(location):
        return Path(location).open("rb")


def uri_of_location(location: str) -> str:
    """Return the URI of a file.

    It is the path itself if it is valid UTF-8, and otherwise percent-encoded after ``file://``. In
    the location of an object, only the characters with a meaning in URIs are percent-encoded.
    """
    if is_remote(location):
        return _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", location)
    try:
        location.encode("utf-8")
    except UnicodeEncodeError:
        return FILE_SCHEME + quote_from_bytes(os.fsencode(location))
    return location


def location_of(quoted: str) -> str:
    """Return the location of an object from its URI."""
    return unquote(quoted)
