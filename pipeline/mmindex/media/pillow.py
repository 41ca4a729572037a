"""What every caller of Pillow's parsers must know: what they raise, and how to ask for EXIF."""

from __future__ import annotations

import struct
import zlib
from typing import Final

from PIL import Image

# Everything that Pillow's parsers raise on damaged bytes; closed, so that a bug still shows as one.
DECODER_ERRORS: Final = (
    # What Pillow's own fuzz targets allow (Tests/oss-fuzz/test_fuzzers.py), and RuntimeError, which
    # 130,000 damaged files drew from its WEBP and AVIF decoders.
    OSError,
    SyntaxError,
    MemoryError,
    ValueError,
    RuntimeError,  # holds NotImplementedError
    OverflowError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    # From its parsers in Python where a field or table is cut off or empty.
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)


def read_exif(image: Image.Image, data: bytes) -> Image.Exif:
    """The EXIF block of an opened image; empty where it has none or the block is damaged.

    Pixels are decoded only for a PNG whose EXIF follows its pixels.

    Args:
        image: as opened from ``data``.
        data: the file's bytes.

    Raises:
        DecompressionBombError: a compressed block of text would grow beyond Pillow's limit.
    """
    if image.format == "PNG" and b"eXIf" not in data and b"Raw profile" not in data:
        # PngImageFile.getexif decodes the whole image to look for EXIF behind the pixels.
        read = Image.Image.getexif
    else:
        read = type(image).getexif
    try:
        return read(image)
    except Image.DecompressionBombError:
        raise
    except DECODER_ERRORS:
        return Image.Exif()
