"""RAW files as written by cameras, in memory: DNG 1.4 with an uncompressed colour filter array."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

_SHORT, _LONG, _ASCII, _BYTE, _SRATIONAL = 3, 4, 2, 1, 10
_FORMS = {_SHORT: "H", _LONG: "I", _BYTE: "B", _SRATIONAL: "i"}

# The matrix from XYZ to a camera with sRGB primaries, times 1,000.
_XYZ_TO_SRGB = (3241, -1537, -499, -969, 1876, 42, 56, -204, 1057)
_SRGB = tuple(number for value in _XYZ_TO_SRGB for number in (value, 1000))

Tag = tuple[int, int, tuple[int, ...] | bytes]


def dng(image: Image.Image, orientation: int = 1, preview: Image.Image | None = None) -> bytes:
    """Return the file of a camera that was pointed at an image.

    Args:
        image: the image on the sensor, not rotated; its sides are even.
        orientation: how to rotate it, as in EXIF.
        preview: the JPEG of the camera, or None.
    """
    colours = np.asarray(image.convert("RGB")).astype(np.uint16) * 257
    sensor = colours[..., 1].copy()  # RGGB
    sensor[::2, ::2], sensor[1::2, 1::2] = colours[::2, ::2, 0], colours[1::2, 1::2, 2]
    pixels = sensor.astype("<u2").tobytes()
    main: list[Tag] = [
        (254, _LONG, (0,)), *_plain(image.size, (16,), 1, 32803, 1),
        (271, _ASCII, b"Acme\0"), (272, _ASCII, b"Acme One\0"), (274, _SHORT, (orientation,)),
        (306, _ASCII, b"2023:06:01 12:30:00\0"),
        (33421, _SHORT, (2, 2)), (33422, _BYTE, bytes([0, 1, 1, 2])),
        (50706, _BYTE, bytes([1, 4, 0, 0])), (50708, _ASCII, b"Acme One\0"),
        (50714, _LONG, (0,)), (50717, _LONG, (65535,)),
        (50721, _SRATIONAL, _SRGB),
        (50728, _SHORT, (1, 1, 1)), (50778, _SHORT, (21,)),
    ]  # fmt: skip
    if preview is None:
        return _file([(main, pixels)])
    buffer = io.BytesIO()
    preview.save(buffer, "JPEG", quality=90)
    small = [(254, _LONG, (1,)), *_plain(preview.size, (8, 8, 8), 7, 6, 3)]
    return _file([(main, pixels), (small, buffer.getvalue())])


def _plain(
    size: tuple[int, int], bits: tuple[int, ...], compression: int, colours: int, samples: int
) -> list[Tag]:
    return [
        (256, _LONG, (size[0],)), (257, _LONG, (size[1],)), (258, _SHORT, bits),
        (259, _SHORT, (compression,)), (262, _SHORT, (colours,)), (277, _SHORT, (samples,)),
        (278, _LONG, (size[1],)),
    ]  # fmt: skip


def _file(parts: list[tuple[list[Tag], bytes]]) -> bytes:
    """A TIFF with one directory for each part, each followed by its values and its strip."""
    file = struct.pack("<2sHI", b"II", 42, 8)
    for number, (tags, strip) in enumerate(parts):
        count = len(tags) + 2
        values_at = len(file) + 2 + 12 * count + 4
        values, entries = b"", {}
        for tag, kind, value in tags:
            data = value if isinstance(value, bytes) else struct.pack(
                f"<{len(value)}{_FORMS[kind]}", *value
            )  # fmt: skip
            length = len(value) // 2 if kind == _SRATIONAL else len(value)
            place = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(
                "<I", values_at + len(values)
            )  # fmt: skip
            if len(data) > 4:
                values += data + b"\0" * (len(data) % 2)
            entries[tag] = struct.pack("<HHI", tag, kind, length) + place
        strip_at = values_at + len(values)
        entries[273] = struct.pack("<HHII", 273, _LONG, 1, strip_at)
        entries[279] = struct.pack("<HHII", 279, _LONG, 1, len(strip))
        padded = strip + b"\0" * (len(strip) % 2)
        next_at = strip_at + len(padded) if number + 1 < len(parts) else 0
        directory = b"".join(entries[tag] for tag in sorted(entries))
        file += struct.pack("<H", count) + directory + struct.pack("<I", next_at) + values + padded
    return file
