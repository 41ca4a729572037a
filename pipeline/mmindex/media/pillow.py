"""Errors of Pillow's parsers, and reading EXIF."""

from __future__ import annotations

import struct
import zlib
from typing import Final

from PIL import Image

# Everything that Pillow's parsers raise on damaged bytes; a closed list, so that bugs are reported.
DECODER_ERRORS: Final = (
    # The errors that Pillow's fuzz targets allow (Tests/oss-fuzz/test_fuzzers.py), and
    # RuntimeError, which its WebP and AVIF decoders raised for some of 130,000 damaged files.
    OSError,
    SyntaxError,
    MemoryError,
    ValueError,
    RuntimeError,  # includes NotImplementedError
    OverflowError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    # From its Python parsers if a field or table is truncated or empty.
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)


def read_exif(image: Image.Image, data: bytes) -> Image.Exif:
    """Return the EXIF block of an opened image; empty if there is none or it is damaged.

    Pixels are decoded only for a PNG whose EXIF follows its pixels.

    Args:
        image: the image opened from ``data``.
        data: the bytes of the file.

    Raises:
        DecompressionBombError: a compressed block of text would grow beyond Pillow's limit.
    """
    if image.format == "PNG" and b"eXIf" not in data and b"Raw profile" not in data:
        # PngImageFile.getexif decodes the whole image to find EXIF after the pixels.
        read = Image.Image.getexif
    else:
        read = type(image).getexif
    try:
        return read(image)
    except Image.DecompressionBombError:
        raise
    except DECODER_ERRORS:
        return Image.Exif()
