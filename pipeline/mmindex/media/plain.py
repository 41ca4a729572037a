"""Image files without metadata, for sending to other people."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from mmindex.media.images import ImageLimits, orientation, to_jpeg
from mmindex.media.strip import CannotStripError, strip_metadata
from mmindex.media.uris import open_indexed, read_indexed

# Formats that are sent in the original format without metadata; others are converted to JPEG.
_TYPES: Final = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
}


@dataclass(frozen=True, slots=True)
class Plain:
    """The bytes of a file and its media type."""

    data: bytes
    media_type: str


def plain_file(uri: str, key: str, form: str, limits: ImageLimits) -> Plain:
    """Return an image of the corpus without metadata, as a JPEG if its format is not supported.

    Args:
        uri: the location of the image.
        key: the key of the image when it was indexed.
        form: the format, as named by Pillow.
        limits: the limits of the image.

    Raises:
        ItemError: the image has changed, or cannot be read or decoded.
    """
    if form in _TYPES:
        data = read_indexed(uri, key, limits)
        with suppress(CannotStripError):
            clean = strip_metadata(data, form, orientation(data, limits))
            if clean is not None:
                return Plain(clean, _TYPES[form])
    return Plain(to_jpeg(open_indexed(uri, key, limits)), "image/jpeg")
