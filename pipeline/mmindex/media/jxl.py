"""JPEG XL as a Pillow plugin, based on libjxl (the extra ``jxl``).

libjxl rotates the image according to the orientation in its own header. The orientation in an EXIF
block is ignored (ISO/IEC 18181-2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, Any, Final

from PIL import Image, ImageFile

from mmindex.core.records import ItemError, Reason
from mmindex.media.kinds import JXL

FORMAT: Final = "JXL"
_CONTAINER: Final = b"\0\0\0\x0cJXL \r\n\x87\n"
SIGNATURES: Final = (b"\xff\x0a", _CONTAINER)
# Larger blocks are not the metadata of a photograph.
_MOST_METADATA_BYTES: Final = 4 << 20
_MODES: Final = {(1, False): "L", (1, True): "LA", (3, False): "RGB", (3, True): "RGBA"}


class JxlFile(ImageFile.ImageFile):
    """The first frame of a JPEG XL file, with 8 bits per channel."""

    format = FORMAT

    def _open(self) -> None:
        if not JXL.installed:
            raise ItemError(Reason.UNSUPPORTED, "JPEG XL: install mmindex[jxl] to read it")
        import pylibjxl

        file: IO[bytes] = self.fp  # type: ignore[assignment]  # set before Pillow calls
        self._data = file.read()
        info = pylibjxl.probe(self._data)
        self._size = (info["width"], info["height"])
        self._mode = _MODES[info["color_channels"], bool(info["has_alpha"])]
        for kind, content in _metadata(self._data):
            if kind == b"Exif" and len(content) > 4:
                # The first four bytes contain the offset of the TIFF header.
                start = 4 + int.from_bytes(content[:4], "big")
                self.info["exif"] = b"Exif\0\0" + content[start:]
            elif kind == b"xml ":
                self.info["xmp"] = content

    def load(self) -> Any:
        """Decode the pixels."""
        if self._im is None:
            import pylibjxl

            pixels = Image.fromarray(pylibjxl.decode(self._data).squeeze())
            if pixels.size != self.size:
                raise OSError(f"{pixels.size} pixels, but the header states {self.size}")
            self._im, self._mode = pixels.im, pixels.mode
        return Image.Image.load(self)


def register() -> None:
    """Register the format with Pillow."""
    Image.register_open(FORMAT, JxlFile, lambda prefix: prefix.startswith(SIGNATURES))


def _metadata(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Return the metadata boxes of a container; ``brob`` boxes are decompressed (18181-2, 9.6)."""
    import brotli

    for kind, content in _boxes(data):
        if kind != b"brob":
            yield kind, content
        elif content[:4] in (b"Exif", b"xml "):
            unpacker = brotli.Decompressor()
            try:
                text = unpacker.process(content[4:], output_buffer_limit=_MOST_METADATA_BYTES)
            except brotli.error:
                continue
            if unpacker.is_finished():
                yield content[:4], text


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the boxes of a container: type and content."""
    at = 0
    while data.startswith(_CONTAINER) and at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= len(data):
            size, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        end = len(data) if size == 0 else at + size
        if end < at + head or end > len(data):
            return
        yield kind, data[at + head : end]
        at = end
