"""Image files in memory."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pillow_heif
import pylibjxl
from PIL import Image

from support.raw_files import dng


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the file that Pillow writes, or another writer for HEIF, JXL and RAW."""
    if kind == "HEIF":
        return heic(image, **options)
    if kind == "JXL":
        return pylibjxl.encode(np.asarray(image), **options)
    if kind == "RAW":
        return dng(image, **options)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def heic(image: Image.Image, bit_depth: int = 8, **options: Any) -> bytes:
    """Return a file written by pillow-heif, which is installed only for this purpose."""
    if bit_depth == 8:
        made = pillow_heif.from_pillow(image)
    else:
        wide = np.asarray(image.convert("RGB")).astype(np.uint16) << 8
        made = pillow_heif.from_bytes("RGB;16", image.size, wide.tobytes())
    buffer = io.BytesIO()
    made.save(buffer, **options)
    return buffer.getvalue()
