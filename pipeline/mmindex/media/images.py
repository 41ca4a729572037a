"""Decode the bytes of a file to an RGB image, or return a reason.

Only formats of a closed list are tried, so no subprocess is started (Pillow would run Ghostscript
for an EPS), and files without a signature are not guessed.

The conversion to RGB for each kind of image: :mod:`mmindex.media.rgb`.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

import pi_heif
from PIL import Image, ImageFile, UnidentifiedImageError

from mmindex.core.records import ItemError, Reason
from mmindex.media import jxl, raw
from mmindex.media.photo import Fields, photo_fields
from mmindex.media.pillow import DECODER_ERRORS, read_exif
from mmindex.media.rgb import to_rgb
from mmindex.media.sniff import explain_unidentified

FORMATS: Final = (
    raw.FORMAT,  # before TIFF, because most RAW files look like TIFF files
    "JPEG",  # also MPO, of which the first image is used
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "AVIF",
    "JPEG2000",
    "ICO",
    "PPM",
    "HEIF",
    jxl.FORMAT,
)

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Formats that are rotated when they are loaded, and whose reported size is the rotated one.
_TURNED: Final = frozenset({"TIFF", jxl.FORMAT, raw.FORMAT})
_ORIENTATION_TAG: Final = 0x0112
_JPEG_QUALITY: Final = 82  # JPEG quality of images on pages
_DETAIL_CHARS: Final = 200

# Warning filters and Pillow's pixel limit apply to the whole process, so each process decodes one
# image at a time. Use several processes to use several cores.
_PILLOW_STATE = threading.RLock()


class HasImageLimits(Protocol):
    """Settings with the limits of an image."""

    @property
    def max_pixels(self) -> int:
        """Width times height."""

    @property
    def max_bytes(self) -> int:
        """Size of the file."""

    @property
    def max_aspect(self) -> float:
        """Longest side over shortest."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The limits of an image.

    Attributes:
        max_pixels: width times height, from the header, before decoding.
        max_bytes: size of the file.
        max_aspect: longest side over shortest side.
    """

    max_pixels: int
    max_bytes: int
    max_aspect: float

    @classmethod
    def of(cls, settings: HasImageLimits) -> Self:
        """Create the limits from the section ``[limits]`` of the settings."""
        return cls(settings.max_pixels, settings.max_bytes, settings.max_aspect)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The facts in the header of an image.

    Attributes:
        width, height: in pixels, as displayed.
        format: the format, as named by Pillow.
        fields: the metadata, see :mod:`mmindex.media.photo`.
    """

    width: int
    height: int
    format: str
    fields: Fields = field(default_factory=dict)


def probe(data: bytes, limits: ImageLimits) -> ImageInfo:
    """Read the header of an image and its metadata.

    Pixels are decoded only for a PNG whose orientation follows its pixels.

    Args:
        data: the bytes of the file.
        limits: the limits of the image.

    Raises:
        ItemError: the bytes are no image that can be indexed; the reason is ``empty``,
            ``too_large``, ``too_thin``, ``truncated``, ``corrupt``, ``unsupported`` or
            ``not_an_image``.
    """
    with _guarded(data, limits):
        image = _open(data, limits)
        width, height = image.size
        exif = read_exif(image, data)
        if _orientation(image, exif) >= 5:
            width, height = height, width
        return ImageInfo(width, height, str(image.format), photo_fields(image, exif))


def orientation(data: bytes, limits: ImageLimits) -> int:
    """Return the EXIF orientation of an image, 1 to 8; the default is 1.

    Raises:
        ItemError: as :func:`probe`.
    """
    with _guarded(data, limits):
        image = _open(data, limits)
        return _orientation(image, read_exif(image, data))


def decode(data: bytes, limits: ImageLimits) -> Image.Image:
    """Decode an image as described in :mod:`mmindex.media.rgb`.

    Args:
        data: the bytes of the file.
        limits: the limits of the image.

    Returns:
        an RGB image with the size that :func:`probe` reports (a RAW file can be smaller), without
        metadata.

    Raises:
        ItemError: as :func:`probe`, or the pixels are damaged.
    """
    with _guarded(data, limits):
        image = _open(data, limits)
        turn = _TURNS.get(_orientation(image, read_exif(image, data)))
        rgb = to_rgb(image)
        return rgb if turn is None else rgb.transpose(turn)


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert an opened image to RGB by the rules of :func:`decode`.

    Raises:
        ItemError: the image cannot be loaded, or has no pixels.
    """
    if not image.width or not image.height:
        raise ItemError(Reason.CORRUPT, f"{image.width}x{image.height} pixels")
    _silence_decoders()
    try:
        # Orientation first, because loading can remove the tag.
        turn = _TURNS.get(_orientation(image, read_exif(image, b"")))
        rgb = to_rgb(image)
    except DECODER_ERRORS as error:
        raise _explain(error, b"") from error
    return rgb if turn is None else rgb.transpose(turn)


def to_jpeg(image: Image.Image) -> bytes:
    """Encode pixels as a JPEG without comments, EXIF or colour profile of the original."""
    clean = Image.new("RGB", image.size)
    clean.paste(image)
    buffer = io.BytesIO()
    clean.save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


@contextmanager
def _guarded(data: bytes, limits: ImageLimits) -> Iterator[None]:
    """Run Pillow silently with our pixel limit, and convert its errors to reasons."""
    _silence_decoders()
    with _PILLOW_STATE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = limits.max_pixels
        try:
            yield
        except DECODER_ERRORS as error:
            raise _explain(error, data) from error
        finally:
            Image.MAX_IMAGE_PIXELS = before


@functools.cache
def _silence_decoders() -> None:
    """Stop libtiff and Pillow's logger from printing to stderr; exceptions have all details.

    The symbols of libtiff are looked up in Pillow's own module, so they are those of the library
    that it uses. If Pillow hides them, libtiff's default stays in effect.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    pillow = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if hasattr(pillow, name):
            setter = getattr(pillow, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)


def _open(data: bytes, limits: ImageLimits) -> ImageFile.ImageFile:
    if not data:
        raise ItemError(Reason.EMPTY, "zero bytes")
    if len(data) > limits.max_bytes:
        raise ItemError(Reason.TOO_LARGE, f"{len(data)} bytes, the limit is {limits.max_bytes}")
    image = Image.open(io.BytesIO(data), formats=_formats())
    check_size(*image.size, limits)
    return image


def check_size(width: int, height: int, limits: ImageLimits) -> None:
    """Check the size of an image before its pixels are decoded.

    Raises:
        ItemError: it has no pixels, too many pixels, or a too large aspect ratio.
    """
    if width < 1 or height < 1:
        raise ItemError(Reason.CORRUPT, f"{width}x{height} pixels")
    if width * height > limits.max_pixels:
        raise ItemError(
            Reason.TOO_LARGE, f"{width}x{height} pixels, the limit is {limits.max_pixels}"
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise ItemError(
            Reason.TOO_THIN, f"{width}x{height} pixels, the limit is {limits.max_aspect:g}:1"
        )


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return the closed list of formats, after registering the plugins with Pillow."""
    pi_heif.register_heif_opener()
    jxl.register()
    raw.register()
    return FORMATS


def _orientation(image: Image.Image, exif: Image.Exif) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none or the EXIF block is damaged."""
    if image.format in _TURNED:
        return 1
    try:
        value = exif.get(_ORIENTATION_TAG, 1)
    except Image.DecompressionBombError:
        raise
    except DECODER_ERRORS:
        return 1
    return value if value in _TURNS else 1


def _explain(error: BaseException, data: bytes) -> ItemError:
    """Return the reason and a one-line detail of limited length for an error from Pillow."""
    # Pillow's message for an unknown file contains a memory address, which differs in each run.
    if isinstance(error, UnidentifiedImageError):
        return explain_unidentified(data)
    detail = " ".join(f"{type(error).__name__}: {error}".split())[:_DETAIL_CHARS]
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ItemError(Reason.TOO_LARGE, detail)
    if isinstance(error, MemoryError):
        return ItemError(Reason.DECODER_DIED, "out of memory")
    if isinstance(error, EOFError) or "truncated" in detail.lower():
        return ItemError(Reason.TRUNCATED, detail)
    return ItemError(Reason.CORRUPT, detail)
