"""Camera RAW files as a Pillow plugin, based on LibRaw (the extra ``raw``).

The preview from the camera is used if it is large enough for any model: it shows what the
photographer saw, and takes a tenth of the time. Otherwise, the sensor data is developed at half
size.
"""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from mmindex.core.records import ItemError, Reason
from mmindex.media.kinds import RAW
from mmindex.media.pillow import DECODER_ERRORS

if TYPE_CHECKING:
    import rawpy

FORMAT: Final = "RAW"
# Models use 224 to 512 pixels, and pages show up to 1,000.
_LARGE_PREVIEW: Final = 1_000

_TIFF: Final = (b"II*\0", b"MM\0*")
# Fujifilm, Olympus, Panasonic, Minolta, Sigma.
SIGNATURES: Final = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0MRM", b"FOVb")
_CR2: Final = b"CR\2"  # at byte 8
CR3: Final = b"ftypcrx "  # Canon, at byte 4

_SUBFILE_TYPE, _COMPRESSION, _PHOTOMETRIC, _MAKE = 254, 259, 262, 271
_SUB_IFDS, _DNG_VERSION = 330, 50706
_SENSOR_VALUES: Final = frozenset({32803, 34892})  # colour filter array, linear raw
_SENSOR_CODES: Final = frozenset({32767, 34713, 65535})  # Sony, Nikon, Pentax

# LibRaw's values for rotations by 180 degrees, 90 to the left, 90 to the right.
_TURNS: Final = {
    3: Image.Transpose.ROTATE_180,
    5: Image.Transpose.ROTATE_90,
    6: Image.Transpose.ROTATE_270,
}
_SIDEWAYS: Final = frozenset({5, 6})


class RawFile(ImageFile.ImageFile):
    """A RAW file with the size of the full image; its pixels are upright and can be fewer."""

    format = FORMAT

    def _open(self) -> None:
        file: IO[bytes] = self.fp  # type: ignore[assignment]  # set before Pillow calls
        self._data = file.read()
        if not is_raw(self._data):
            raise SyntaxError("not a RAW file")
        if not RAW.installed:
            raise ItemError(Reason.UNSUPPORTED, "a camera RAW file: install mmindex[raw]")
        with _opened(self._data) as raw:
            sizes = raw.sizes
            size = (sizes.width, sizes.height)
            self._size = size[::-1] if sizes.flip in _SIDEWAYS else size
        self._mode = "RGB"

    def load(self) -> Any:
        """Load the preview, or develop the image."""
        if self._im is None:
            with _opened(self._data) as raw:
                image = _preview(raw) or _developed(raw)
            self._im, self._size = image.im, image.size
        return Image.Image.load(self)

    def getexif(self) -> Image.Exif:
        """Return the metadata in the file, or in its preview."""
        exif = Image.Exif()
        if self._data.startswith((*_TIFF, b"IIRO", b"IIRS")):
            exif.load(b"Exif\0\0" + self._data[:2] + _tiff_mark(self._data) + self._data[4:])
        else:
            with _opened(self._data) as raw:
                preview = _embedded(raw)
            exif = exif if preview is None else preview.getexif()
        return exif


def register() -> None:
    """Register the format with Pillow."""
    Image.register_open(FORMAT, RawFile, _may_be_raw)


def is_raw(data: bytes) -> bool:
    """Return whether a file is a RAW file. A TIFF is one if it contains sensor data."""
    if not data.startswith(_TIFF):
        return _may_be_raw(data[:16])
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        found = {tag: directory[tag] for tag in _TELLING if tag in directory}
    except DECODER_ERRORS:
        return False
    return (
        data[8:11] == _CR2
        or _DNG_VERSION in found
        or found.get(_PHOTOMETRIC) in _SENSOR_VALUES
        or found.get(_COMPRESSION) in _SENSOR_CODES
        # A small image first and larger ones below it, from a camera: sensor data is among them.
        or (found.get(_SUBFILE_TYPE) == 1 and _SUB_IFDS in found and _MAKE in found)
    )


_TELLING: Final = (_SUBFILE_TYPE, _COMPRESSION, _PHOTOMETRIC, _MAKE, _SUB_IFDS, _DNG_VERSION)


def _may_be_raw(prefix: bytes) -> bool:
    return prefix.startswith((*_TIFF, *SIGNATURES)) or prefix[4:12] == CR3


def _tiff_mark(data: bytes) -> bytes:
    return b"*\0" if data.startswith(b"II") else b"\0*"


def _opened(data: bytes) -> rawpy.RawPy:
    """Open the file in LibRaw; the caller must close it.

    Raises:
        SyntaxError: LibRaw does not support it; Pillow then tries its other plugins.
    """
    import rawpy

    try:
        return rawpy.imread(io.BytesIO(data))
    except rawpy.LibRawError as error:
        raise SyntaxError(f"LibRaw: {error}") from error


def _embedded(raw: rawpy.RawPy) -> Image.Image | None:
    """Return the preview in the file; None if there is none in a known format."""
    import rawpy

    try:
        thumb = raw.extract_thumb()
    except rawpy.LibRawError:
        return None
    if thumb.format == rawpy.ThumbFormat.JPEG:
        try:
            return Image.open(io.BytesIO(bytes(thumb.data)), formats=("JPEG",))
        except DECODER_ERRORS:
            return None
    is_bitmap = thumb.format == rawpy.ThumbFormat.BITMAP
    return Image.fromarray(np.asarray(thumb.data)) if is_bitmap else None


def _preview(raw: rawpy.RawPy) -> Image.Image | None:
    """Return the upright preview; None if it is too small or damaged."""
    image = _embedded(raw)
    if image is None or max(image.size) < _LARGE_PREVIEW:
        return None
    try:
        upright = image.convert("RGB")
    except DECODER_ERRORS:
        return None
    sizes = raw.sizes
    # A few cameras rotate the preview itself, so that its shape differs from the sensor's image.
    turned = sizes.flip in _SIDEWAYS and (
        (image.width > image.height) != (sizes.width > sizes.height)
    )
    turn = None if turned else _TURNS.get(sizes.flip)
    return upright if turn is None else upright.transpose(turn)


def _developed(raw: rawpy.RawPy) -> Image.Image:
    """Return the developed image, which LibRaw turns upright."""
    import rawpy

    try:
        pixels = raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8)
    except rawpy.LibRawError as error:
        raise OSError(f"LibRaw: {error}") from error
    return Image.fromarray(pixels)
