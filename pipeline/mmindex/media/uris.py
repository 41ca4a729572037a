"""Read the bytes of a ``uri``.

The forms of a URI:

- an absolute path, followed by ``#t=SECONDS`` for a video frame;
- ``ARCHIVE.zip!MEMBER``, ``ARCHIVE.tar!MEMBER``, ``FILE.parquet!COLUMN/ROW``;
- the location of an object, ``s3://BUCKET/KEY`` (also ``gs://`` and ``az://``), alone or with ``!``
  and a member; ``%``, ``!`` and ``#`` in the key are percent-encoded;
- ``file://`` with percent-encoding, for a path that is not valid UTF-8 (``!`` and the member follow
  as above).

Decode workers import this module, so it imports little: Arrow only if it is needed.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from mmindex.core.errors import DataError, NoInputError, PermissionDeniedError
from mmindex.core.records import ItemError, Reason
from mmindex.media import archive, tars
from mmindex.media.files import FILE_SCHEME, is_remote, location_of
from mmindex.media.images import ImageLimits, decode
from mmindex.media.video import frame_key, read_frame, split_frame, video_key

if TYPE_CHECKING:
    from PIL.Image import Image

_CHANGED: Final = "the file has changed since it was read"
DEFAULT_MAX_BYTES: Final = 256 * 1024 * 1024
_PARQUET_MARK: Final = ".parquet!"
_MARKS: Final = (archive.MARK, tars.MARK, _PARQUET_MARK)


def read_uri(uri: str, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
    """Read the bytes of a ``uri``.

    A missing or damaged archive affects only the item, not the run; a damaged archive stops the
    crawl, which reads whole archives.

    Args:
        uri: the URI from the crawl.
        max_bytes: the size limit, checked before reading.

    Raises:
        ItemError: the file or member is missing, unreadable, too large or damaged.
        StorageError: the machine is out of memory or file descriptors, or the disk fails.
        NetworkError, PermissionDeniedError: an object store cannot be reached or refuses access,
            which says nothing about this item.
    """
    video, time_s = split_frame(uri)
    if time_s is not None:
        return _frame_file(split_uri(video)[0], time_s, max_bytes)
    path, inside = _parts(uri)
    if inside is None:
        return archive.read_file(path, max_bytes)
    try:
        return _read_inside(path, inside, max_bytes)
    except NoInputError as error:
        raise ItemError(Reason.MISSING, error.message) from error
    except PermissionDeniedError as error:
        if is_remote(path):
            raise
        raise ItemError(Reason.UNREADABLE, error.message) from error
    except DataError as error:
        raise ItemError(Reason.BAD_ARCHIVE_MEMBER, error.message) from error


def _frame_file(path: str, time_s: float, max_bytes: int) -> bytes:
    """Return a frame as the bytes of an image file."""
    buffer = io.BytesIO()
    pixels = max_bytes // 3
    read_frame(path, time_s, ImageLimits(pixels, max_bytes, pixels)).save(buffer, "BMP")
    return buffer.getvalue()


def key_of(uri: str, data: bytes) -> str:
    """Return the key of an image from :func:`read_uri`: the sha256 of its file, in hex.

    Raises:
        ItemError: it is a video frame, and the video can no longer be read.
    """
    video, time_s = split_frame(uri)
    if time_s is not None:
        return frame_key(video_key(split_uri(video)[0]), time_s)
    return hashlib.sha256(data).hexdigest()


def open_indexed(uri: str, key: str, limits: ImageLimits) -> Image:
    """Decode an image of the corpus if it has not changed since it was indexed.

    Raises:
        ItemError: it has changed, or cannot be read or decoded.
    """
    video, time_s = split_frame(uri)
    if time_s is None:
        return decode(read_indexed(uri, key, limits), limits)
    path, _ = split_uri(video)
    if frame_key(video_key(path), time_s) != key:
        raise ItemError(Reason.CHANGED, _CHANGED)
    return read_frame(path, time_s, limits)


def read_indexed(uri: str, key: str, limits: ImageLimits) -> bytes:
    """Read an image of the corpus if it has not changed since it was indexed.

    Raises:
        ItemError: it has changed, or cannot be read.
    """
    data = read_uri(uri, limits.max_bytes)
    if key_of(uri, data) != key:
        raise ItemError(Reason.CHANGED, _CHANGED)
    return data


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
    """Split a URI into the location and the member; a mark counts only after the path of a file.

    For a video frame, the location is that of the video.
    """
    path, inside = _parts(uri)
    if inside is not None and is_remote(path):
        inside, _ = tars.split_range(inside)
    return path, inside


def _parts(uri: str) -> tuple[str, str | None]:
    if is_remote(uri):
        quoted, mark, inside = uri.partition("!")
        return location_of(quoted), inside if mark else None
    uri, _ = split_frame(uri)
    if uri.startswith(FILE_SCHEME):
        # A percent-encoded path contains no "!", so the first one is the separator.
        quoted, mark, inside = uri[len(FILE_SCHEME) :].partition("!")
        return os.fsdecode(unquote_to_bytes(quoted)), inside if mark else None
    lowered = uri.lower()
    at = lowered.find("!")
    while at >= 0:
        if lowered[: at + 1].endswith(_MARKS) and Path(uri[:at]).is_file():
            return uri[:at], uri[at + 1 :]
        at = lowered.find("!", at + 1)
    return uri, None
