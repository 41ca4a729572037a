"""Find the images that users name by path, uri or id.

Pillow and the settings are imported when an image is read: a text query needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmindex.core.errors import DataError, MmindexError, NoInputError
from mmindex.core.records import ItemError, Reason
from mmindex.core.resources import user_path

if TYPE_CHECKING:
    from PIL.Image import Image


def path_of(where: str) -> str:
    """Return a path with ``~`` replaced by the home folder."""
    return str(user_path(where)) if where.startswith("~") else where


def content_of(where: str) -> bytes | MmindexError | None:
    """Read the bytes of a path or uri; None if there is no such file."""
    from mmindex.media.uris import read_uri

    if "\0" in where:  # a file name cannot contain a null character
        return None
    try:
        return read_uri(path_of(where))
    except ItemError as error:
        if error.reason is Reason.MISSING:
            return None
        return DataError(f"{where}: {error.reason}: {error.detail}")


def decoded(where: str, data: bytes) -> Image:
    """Decode an image from bytes, RGB and upright.

    Raises:
        DataError: it cannot be decoded.
    """
    from mmindex.core.config import LimitsConfig
    from mmindex.media.images import ImageLimits, decode

    try:
        return decode(data, ImageLimits.of(LimitsConfig()))
    except ItemError as error:
        raise DataError(f"{where}: {error.reason}: {error.detail}") from error


def open_image(where: str) -> Image:
    """Open the image at a path or uri, RGB and upright.

    Raises:
        NoInputError: there is no such file.
        DataError: it cannot be decoded.
    """
    content = content_of(where)
    if content is None:
        raise NoInputError(
            f"{where}: no such file", "check whether it was moved after the index was built"
        )
    if isinstance(content, MmindexError):
        raise content
    return decoded(where, content)


def unknown(where: str) -> NoInputError:
    """Return the error for a name that is not a file and not in the corpus."""
    return NoInputError(
        f"{where}: no such file, and no image of the corpus has this id or uri",
        "an id looks like coco/val2017/000000000139; `mmindex query TEXT` shows ids",
    )
