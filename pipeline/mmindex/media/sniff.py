"""Identify a file by its first bytes; used only if no decoder recognises it."""

from __future__ import annotations

from typing import Final

from mmindex.core.records import ItemError, Reason
from mmindex.media import jxl, raw

_HEAD_BYTES: Final = 1024

# Formats with a decoder: if no decoder accepts such a file, it is damaged.
_READABLE: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\1\0", "ICO"),
    *((signature, "JPEG XL") for signature in jxl.SIGNATURES),
    *((signature, "a RAW file") for signature in raw.SIGNATURES),
)

# Image formats that are not decoded: unsafe, vector graphics, or without a decoder.
_UNSUPPORTED: Final = (
    (b"8BPS", "a Photoshop document"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
)

_OTHER: Final = (
    (b"%PDF", "a PDF document"),
    (b"PK\3\4", "a zip archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"\xd0\xcf\x11\xe0", "an OLE document"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"version https://", "a pointer to a file stored elsewhere"),
)

# Brands of ISO media files: https://nokiatech.github.io/heif/technical.html
_HEIF_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
)
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})


def explain_unidentified(data: bytes) -> ItemError:
    """Return the reason and detail for a file that no decoder recognises.

    Args:
        data: the bytes of the file, not empty.
    """
    head = data[:_HEAD_BYTES]
    for signature, name in _READABLE:
        if head.startswith(signature):
            return ItemError(Reason.CORRUPT, f"{name} whose header is damaged")
    for signature, name in _UNSUPPORTED:
        if head.startswith(signature):
            return ItemError(Reason.UNSUPPORTED, name)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ItemError(Reason.CORRUPT, "WEBP whose header is damaged")
    if head[4:8] == b"ftyp":
        return _explain_media(head)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in text:
        return ItemError(Reason.UNSUPPORTED, "SVG, a drawing without pixels")
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return ItemError(Reason.NOT_AN_IMAGE, "an HTML page")
    for signature, name in _OTHER:
        if head.startswith(signature):
            return ItemError(Reason.NOT_AN_IMAGE, name)
    return ItemError(Reason.NOT_AN_IMAGE, f"no image format starts with {head[:8]!r}")


def _explain_media(head: bytes) -> ItemError:
    size = int.from_bytes(head[:4], "big")
    brands = {head[at : at + 4] for at in (8, *range(16, min(size, _HEAD_BYTES), 4))}
    if head[4:12] == raw.CR3:
        return ItemError(Reason.CORRUPT, "a RAW file whose header is damaged")
    if brands & _AVIF_BRANDS:
        return ItemError(Reason.CORRUPT, "AVIF whose header is damaged")
    if brands & _HEIF_BRANDS:
        return ItemError(Reason.CORRUPT, "HEIF whose header is damaged")
    return ItemError(Reason.NOT_AN_IMAGE, f"media of brand {head[8:12]!r}")
