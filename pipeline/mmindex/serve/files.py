"""What may be had of one picture: its file without metadata, or a JPEG of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmindex.core.config import LimitsConfig
from mmindex.core.records import ItemError
from mmindex.media.images import ImageLimits, orientation
from mmindex.media.uris import read_indexed
from mmindex.search.hits import Picture
from mmindex.serve.problems import PictureError
from mmindex.serve.strip import CannotStripError, strip_metadata

_TYPES: Final = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
}


@dataclass(frozen=True, slots=True)
class Plain:
    """A picture's file as it is sent."""

    data: bytes
    media_type: str


def plain_file(picture: Picture, form: str) -> Plain | None:
    """A picture's file without metadata; None where it must be sent as a JPEG instead.

    Args:
        picture: an image of the corpus.
        form: its format, as Pillow calls it.

    Raises:
        PictureError: it cannot be read any more, or its bytes are others now.
    """
    if form not in _TYPES:
        return None
    limits = ImageLimits.of(LimitsConfig())
    try:
        data = read_indexed(picture.uri, picture.key, limits)
        clean = strip_metadata(data, form, orientation(data, limits))
    except ItemError as error:
        raise PictureError(f"{error.reason.replace('_', ' ')}: {error.detail}") from error
    except CannotStripError:
        return None
    return None if clean is None else Plain(clean, _TYPES[form])
