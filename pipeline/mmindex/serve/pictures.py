"""Thumbnails, files and uploads, processed in worker processes that can fail.

Workers have the limits of the decode workers of a build: address space, time, pixels.
"""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pebble import ProcessExpired, ProcessPool

from mmindex.core.config import LimitsConfig
from mmindex.core.records import ItemError
from mmindex.core.workers import WORKERS
from mmindex.encode.decoding import Failure, start_worker, worker_bytes
from mmindex.media.images import ImageLimits, decode, orientation
from mmindex.media.uris import open_indexed, read_indexed
from mmindex.serve.problems import PictureError
from mmindex.serve.strip import CannotStripError, strip_metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from mmindex.models.preprocess import Pixels, PreprocessSpec
    from mmindex.search.hits import Picture

T = TypeVar("T")

# Formats whose files are sent as they are, without metadata; others are sent as JPEG.
_TYPES: Final = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
}
THUMB_PIXELS: Final = 512
_QUALITY: Final = 82
_PROCESSES: Final = 2
_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Plain:
    """The file of an image as sent to clients."""

    data: bytes
    media_type: str


class PictureWorkers:
    """The worker processes, started on first use.

    Args:
        limits: the limits that the corpus was crawled with.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = ImageLimits.of(limits)
        self._pool: ProcessPool | None = None
        self._starting = asyncio.Lock()

    async def thumbnail(self, picture: Picture) -> bytes:
        """Return a JPEG of an image in the corpus, at most ``THUMB_PIXELS`` wide and high.

        Raises:
            PictureError: the file cannot be read or decoded, or has changed since it was indexed.
        """
        return await self._run(partial(_jpeg, picture, THUMB_PIXELS, self._limits))

    async def jpeg(self, picture: Picture) -> bytes:
        """Return a full-size JPEG of an image in the corpus; raises as :meth:`thumbnail`."""
        return await self._run(partial(_jpeg, picture, None, self._limits))

    async def plain(self, picture: Picture, form: str) -> Plain:
        """Return the file of an image without metadata, or a JPEG; raises as :meth:`thumbnail`.

        Args:
            picture: an image in the corpus.
            form: the format, as named by Pillow.
        """
        return await self._run(partial(_plain, picture, form, self._limits))

    async def upload(self, data: bytes, spec: PreprocessSpec) -> tuple[Pixels, bytes]:
        """Return the model input and a thumbnail for an upload; raises as :meth:`thumbnail`."""
        return await self._run(partial(_upload, data, spec, self._limits))

    async def _run(self, work: Callable[[], T | Failure]) -> T:
        async with self._starting:
            if self._pool is None or not self._pool.active:
                self._pool = await asyncio.to_thread(self._started)
            future: Any = self._pool.schedule(work, timeout=_TIMEOUT_S)
        try:
            found: T | Failure = await asyncio.wrap_future(future)
        except (FutureTimeoutError, MemoryError, ProcessExpired) as error:
            raise PictureError("decoding the image takes too much time or memory") from error
        if isinstance(found, Failure):
            raise PictureError(f"{found.reason.replace('_', ' ')}: {found.detail}")
        return found

    def _started(self) -> ProcessPool:
        pool = ProcessPool(
            max_workers=_PROCESSES,
            initializer=start_worker,
            initargs=(worker_bytes(self._limits.max_pixels),),
            context=WORKERS,
        )
        pool.schedule(_nothing)  # starts the processes
        return pool

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]  # pebble leaves it bare
            self._pool.join()


def _nothing() -> None:
    """Do nothing; runs once to start the workers of a pool."""


def _jpeg(picture: Picture, pixels: int | None, limits: ImageLimits) -> bytes | Failure:
    try:
        shown = open_indexed(picture.uri, picture.key, limits)
        if pixels is not None:
            shown.thumbnail((pixels, pixels))
        return _encoded(shown)
    except ItemError as error:
        return Failure(error.reason, error.detail)


def _plain(picture: Picture, form: str, limits: ImageLimits) -> Plain | Failure:
    try:
        if form in _TYPES:
            data = read_indexed(picture.uri, picture.key, limits)
            with suppress(CannotStripError):
                clean = strip_metadata(data, form, orientation(data, limits))
                if clean is not None:
                    return Plain(clean, _TYPES[form])
        shown = open_indexed(picture.uri, picture.key, limits)
        return Plain(_encoded(shown), "image/jpeg")
    except ItemError as error:
        return Failure(error.reason, error.detail)


def _upload(
    data: bytes, spec: PreprocessSpec, limits: ImageLimits
) -> tuple[Pixels, bytes] | Failure:
    from mmindex.models.preprocess import to_pixels

    try:
        picture = decode(data, limits)
    except ItemError as error:
        return Failure(error.reason, error.detail)
    pixels = to_pixels(picture, spec)
    picture.thumbnail((THUMB_PIXELS, THUMB_PIXELS))
    return pixels, _encoded(picture)


def _encoded(picture: Image) -> bytes:
    """Encode pixels as a JPEG without comments, EXIF or profile of the original."""
    from PIL import Image as pillow  # noqa: N813 # the module, beside its class

    clean = pillow.new("RGB", picture.size)
    clean.paste(picture)
    buffer = io.BytesIO()
    clean.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
