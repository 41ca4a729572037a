"""Pictures for the web, made in worker processes that may die: thumbnails, JPEGs, uploads.

What a worker does is bounded like a decode worker of a build: address space, time, pixels.
"""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pebble import ProcessExpired, ProcessPool

from mmindex.core.config import LimitsConfig
from mmindex.core.records import ItemError
from mmindex.core.workers import WORKERS
from mmindex.encode.decoding import Failure, start_worker, worker_bytes
from mmindex.media.images import ImageLimits, decode
from mmindex.media.uris import open_indexed
from mmindex.serve.problems import PictureError

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from mmindex.models.preprocess import Pixels, PreprocessSpec
    from mmindex.search.hits import Picture

T = TypeVar("T")

THUMB_PIXELS: Final = 512
_QUALITY: Final = 82
_PROCESSES: Final = 2
_TIMEOUT_S: Final = 20.0


class PictureWorkers:
    """The worker processes; started when first needed."""

    def __init__(self) -> None:
        self._pool: ProcessPool | None = None
        self._limits = LimitsConfig()

    async def thumbnail(self, picture: Picture) -> bytes:
        """A JPEG of an image of the corpus, at most ``THUMB_PIXELS`` wide and high.

        Raises:
            PictureError: it cannot be read or decoded, or its bytes are others now.
        """
        return await self._run(partial(_jpeg, picture.uri, picture.key, THUMB_PIXELS))

    async def jpeg(self, picture: Picture) -> bytes:
        """An image of the corpus as a JPEG of full size; raises as :meth:`thumbnail`."""
        return await self._run(partial(_jpeg, picture.uri, picture.key, None))

    async def upload(self, data: bytes, spec: PreprocessSpec) -> tuple[Pixels, bytes]:
        """What a model sees of a file's bytes, and a thumbnail; raises as :meth:`thumbnail`."""
        return await self._run(partial(_upload, data, spec))

    async def _run(self, work: Callable[[], T | Failure]) -> T:
        if self._pool is None or not self._pool.active:
            self._pool = ProcessPool(
                max_workers=_PROCESSES,
                initializer=start_worker,
                initargs=(worker_bytes(self._limits.max_pixels),),
                context=WORKERS,
            )
        future: Any = self._pool.schedule(work, timeout=_TIMEOUT_S)
        try:
            found: T | Failure = await asyncio.wrap_future(future)
        except (FutureTimeoutError, MemoryError, ProcessExpired) as error:
            raise PictureError("the picture takes too much time or memory to decode") from error
        if isinstance(found, Failure):
            raise PictureError(f"{found.reason.replace('_', ' ')}: {found.detail}")
        return found

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]  # pebble leaves it bare
            self._pool.join()
            self._pool = None


def _limits() -> ImageLimits:
    return ImageLimits.of(LimitsConfig())


def _jpeg(uri: str, key: str, pixels: int | None) -> bytes | Failure:
    try:
        picture = open_indexed(uri, key, _limits())
        if pixels is not None:
            picture.thumbnail((pixels, pixels))
        return _encoded(picture)
    except ItemError as error:
        return Failure(error.reason, error.detail)


def _upload(data: bytes, spec: PreprocessSpec) -> tuple[Pixels, bytes] | Failure:
    from mmindex.models.preprocess import to_pixels

    try:
        picture = decode(data, _limits())
    except ItemError as error:
        return Failure(error.reason, error.detail)
    pixels = to_pixels(picture, spec)
    picture.thumbnail((THUMB_PIXELS, THUMB_PIXELS))
    return pixels, _encoded(picture)


def _encoded(picture: Image) -> bytes:
    """A JPEG made anew from pixels: no comment, EXIF or profile of the original goes along."""
    from PIL import Image as pillow  # noqa: N813 # the module, beside its class

    clean = pillow.new("RGB", picture.size)
    clean.paste(picture)
    buffer = io.BytesIO()
    clean.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
