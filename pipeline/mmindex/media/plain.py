"""A picture's file without metadata, for whoever the picture is sent to."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from mmindex.media.images import ImageLimits, orientation, to_jpeg
from mmindex.media.strip import CannotStripError, strip_metadata
from mmindex.media.uris import open_indexed, read_indexed

# Formats whose files are given as they are, without metadata; others are given as JPEG.
_TYPES: Final = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
}


@dataclass(frozen=True, slots=True)
class Plain:
    """A file and what it is."""

    data: bytes
    media_type: str


def plain_file(uri: str, key: str, form: str, limits: ImageLimits) -> Plain:
    """A picture of the corpus without metadata; a JPEG where its format is not taken apart.

    Args:
        uri: where it is.
        key: its key when it was indexed.
        form: its format, as Pillow calls it.
        limits: of decoding.

    Raises:
        ItemError: it is another one now, or cannot be read or decoded.
    """
    if form in _TYPES:
        data = read_indexed(uri, key, limits)
        with suppress(CannotStripError):
            clean = strip_metadata(data, form, orientation(data, limits))
            if clean is not None:
                return Plain(clean, _TYPES[form])
    return Plain(to_jpeg(open_indexed(uri, key, limits)), "image/jpeg")
