"""Image files by extension, and the optional packages that some of them need."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# fmt: off
_ALWAYS: Final = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo",
    ".png", ".apng", ".webp", ".gif", ".bmp",
    ".tif", ".tiff", ".avif", ".avifs", ".heic", ".heif",
    ".jp2", ".j2k", ".jpx", ".ico",
    ".ppm", ".pgm", ".pbm", ".pnm", ".pfm",
})
_RAW: Final = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef",
    ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf",
    ".srw", ".x3f",
})
# Not .ts, which is usually TypeScript.
VIDEO_EXTENSIONS: Final = frozenset({
    ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Extra:
    """An extra of mmindex, and the files that it reads.

    Attributes:
        name: as in ``pip install 'mmindex[name]'``.
        module: the module that it installs.
        what: the description of the files.
        extensions: the extensions of the files.
    """

    name: str
    module: str
    what: str
    extensions: frozenset[str]

    @property
    def installed(self) -> bool:
        """Whether its package is installed."""
        return _has(self.module)


JXL: Final = Extra("jxl", "pylibjxl", "JPEG XL", frozenset({".jxl"}))
RAW: Final = Extra("raw", "rawpy", "camera RAW files", _RAW)
VIDEO: Final = Extra("video", "av", "videos", VIDEO_EXTENSIONS)
EXTRAS: Final = (JXL, RAW, VIDEO)


def image_extensions() -> frozenset[str]:
    """Return the extensions of the image files that can be read on this machine."""
    return _ALWAYS.union(*(one.extensions for one in (JXL, RAW) if one.installed))


def remedy(extensions: Iterable[str]) -> str:
    """Return the extras to install to read files with these extensions, or an empty text."""
    unread = set(extensions)
    helpful = [one for one in EXTRAS if one.extensions & unread and not one.installed]
    if not helpful:
        return ""
    names = ",".join(one.name for one in helpful)
    return f"install mmindex[{names}] to read {' and '.join(one.what for one in helpful)}"


@functools.cache
def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
