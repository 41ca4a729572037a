"""Remove metadata from an image file without re-encoding its pixels.

Everything needed to display the image stays: colour profile, transparency, animation, and the EXIF
orientation. Everything else is removed: EXIF, XMP, IPTC, comments, embedded previews and data after
the end of the image, where phones store additional images with their own metadata.

Formats: JPEG (ITU T.81, annex B), PNG (https://www.w3.org/TR/png-3/), WebP (RFC 9649).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_PNG: Final = b"\x89PNG\r\n\x1a\n"
# The parts that are needed to display the image; all other parts can contain text.
_PNG_CHUNKS: Final = frozenset({
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB",
    b"cICP", b"mDCV", b"cLLI", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT",
})  # fmt: skip
_WEBP_CHUNKS: Final = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04

_SOI, _EOI, _SOS, _APP0, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE2, 0xEE
# Frames (SOF), tables (DHT, DAC, DQT), scans, lines, restarts and hierarchical progressions; the
# markers reserved for extensions can contain anything.
_SHOWING: Final = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xE0)}) - {0xC8}
_RESTARTS: Final = range(0xD0, 0xD8)
_ALONE: Final = frozenset({0x01, _SOI, *_RESTARTS})


class CannotStripError(ValueError):
    """The file does not follow its format."""


def strip_metadata(data: bytes, form: str, orientation: int = 1) -> bytes | None:
    """Return an image file without metadata; None for formats that are not supported here.

    Args:
        data: the file.
        form: the format, as named by Pillow.
        orientation: the EXIF orientation to keep, 1 to 8; None is returned for a rotated PNG or
            WebP.

    Raises:
        CannotStripError: the file is damaged.
    """
    try:
        match form:
            case "JPEG" | "MPO":
                return b"".join(_jpeg(data, orientation))
            case "PNG" if orientation == 1:
                return b"".join(_png(data))
            case "WEBP" if orientation == 1:
                return _webp(data)
            case _:
                return None
    except (struct.error, IndexError) as error:
        raise CannotStripError(f"{form}: {error}") from error


def _jpeg(data: bytes, orientation: int) -> Iterator[bytes]:
    if data[:2] != b"\xff\xd8":
        raise CannotStripError("not a JPEG")
    yield data[:2]
    written = orientation == 1
    at = 2
    while True:
        if data[at] != 0xFF:
            raise CannotStripError("a marker is missing")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == _EOI:
            yield b"\xff\xd9"
            return
        if marker in _ALONE:
            yield data[at : at + 2]
            at += 2
            continue
        (size,) = struct.unpack_from(">H", data, at + 2)
        segment = data[at : at + 2 + size]
        if size < 2 or len(segment) != 2 + size:
            raise CannotStripError("a segment is truncated")
        if not written and marker != _APP0:
            yield _orientation(orientation)
            written = True
        yield _shown(marker, segment)
        at += 2 + size
        if marker == _SOS:
            end = _scan_end(data, at)
            yield data[at:end]
            at = end


def _shown(marker: int, segment: bytes) -> bytes:
    """Return the part of a segment that is needed to display the image."""
    if marker in _SHOWING or (marker == _APP2 and segment[4:16] == b"ICC_PROFILE\0"):
        return segment
    if marker == _APP0 and segment[4:9] == b"JFIF\0" and len(segment) >= 18:
        return b"\xff\xe0\0\x10" + segment[4:16] + b"\0\0"  # without its thumbnail
    if marker == _APP14 and segment[4:9] == b"Adobe" and len(segment) >= 16:
        return b"\xff\xee\0\x0e" + segment[4:16]
    return b""


def _scan_end(data: bytes, at: int) -> int:
    """Return the end of the entropy-coded data of a scan: the next marker that is not a restart."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise CannotStripError("the image is truncated")
        if data[at + 1] == 0 or data[at + 1] in _RESTARTS:
            at += 2
        elif data[at + 1] == 0xFF:
            at += 1
        else:
            return at


def _orientation(value: int) -> bytes:
    """Return an EXIF segment with only the orientation."""
    tiff = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, value, 0, 0)
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def _png(data: bytes) -> Iterator[bytes]:
    if data[:8] != _PNG:
        raise CannotStripError("not a PNG")
    yield _PNG
    at = 8
    while True:
        size, name = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + 12 + size]
        if len(chunk) != 12 + size:
            raise CannotStripError("a chunk is cut off")
        if name in _PNG_CHUNKS:
            yield chunk
        if name == b"IEND":
            return
        at += 12 + size


def _webp(data: bytes) -> bytes:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise CannotStripError("not a WebP")
    (total,) = struct.unpack_from("<I", data, 4)
    body = b"WEBP" + _webp_chunks(data[12 : 8 + total])
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_chunks(data: bytes) -> bytes:
    at, kept = 0, []
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        chunk = data[at : at + 8 + size]
        if len(chunk) != 8 + size:
            raise CannotStripError("a chunk is cut off")
        if name == b"VP8X":
            flags = chunk[8] & ~(_WEBP_EXIF | _WEBP_XMP)
            chunk = chunk[:8] + bytes([flags]) + chunk[9:]
        if name == b"ANMF":  # a frame: its position and duration, then its own chunks
            frame = chunk[8:24] + _webp_chunks(chunk[24:])
            chunk = name + struct.pack("<I", len(frame)) + frame
        if name in _WEBP_CHUNKS:
            kept.append(chunk + b"\0" * (len(chunk) % 2))
        at += 8 + size + size % 2
    return b"".join(kept)
