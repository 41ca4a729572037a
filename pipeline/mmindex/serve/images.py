"""Thumbnails, files and uploads, processed in worker processes that can fail.

Workers have the limits of the decode workers of a build: address space, time, pixels.
"""

from __future__ import annotations

import asyncio
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pebble import ProcessPool

from mmindex.core.config import LimitsConfig
from mmindex.core.records import ItemError
from mmindex.core.workers import WORKERS, worker_deaths
from mmindex.encode.decoding import Failure, start_worker, worker_bytes
from mmindex.media.images import ImageLimits, decode, to_jpeg
from mmindex.media.plain import Plain, plain_file
from mmindex.media.uris import open_indexed
from mmindex.serve.problems import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmindex.models.preprocess import Pixels, PreprocessSpec
    from mmindex.search.hits import IndexedImage

T = TypeVar("T")

THUMB_PIXELS: Final = 512
_PROCESSES: Final = 2
_TIMEOUT_S: Final = 20.0


class ImageWorkers:
    """The worker processes, started on first use.

    Args:
        limits: the limits that the corpus was crawled with.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = ImageLimits.of(limits)
        self._pool: ProcessPool | None = None
        self._starting = asyncio.Lock()

    async def thumbnail(self, image: IndexedImage) -> bytes:
        """Return a JPEG of an image in the corpus, at most ``THUMB_PIXELS`` wide and high.

        Raises:
            ImageError: the file cannot be read or decoded, or has changed since it was indexed.
        """
        return await self._run(partial(_jpeg, image, THUMB_PIXELS, self._limits))

    async def jpeg(self, image: IndexedImage) -> bytes:
        """Return a full-size JPEG of an image in the corpus; raises as :meth:`thumbnail`."""
        return await self._run(partial(_jpeg, image, None, self._limits))

    async def plain(self, image: IndexedImage, form: str) -> Plain:
        """Return the file of an image without metadata, or a JPEG; raises as :meth:`thumbnail`.

        Args:
            image: an image in the corpus.
            form: the format, as named by Pillow.
        """
        return await self._run(partial(_plain, image, form, self._limits))

    async def upload(self, data: bytes, spec: PreprocessSpec) -> tuple[Pixels, bytes]:
        """Return the model input and a thumbnail for an upload; raises as :meth:`thumbnail`."""
        return await self._run(partial(_upload, data, spec, self._limits))

    async def _run(self, work: Callable[[], T | Failure]) -> T:
        async with self._starting:
            if self._pool is None or not self._pool.active:
                self._pool = await asyncio.to_thread(self._started)
            future: Any = self._pool.schedule(work, timeout=_TIMEOUT_S)
        try:
            with worker_deaths(_TIMEOUT_S):
                found: T | Failure = await asyncio.wrap_future(future)
        except (ItemError, BrokenProcessPool) as error:
            raise ImageError("decoding the image takes too much time or memory") from error
        if isinstance(found, Failure):
            raise ImageError(f"{found.reason.replace('_', ' ')}: {found.detail}")
        return found

    def _started(self) -> ProcessPool:
        pool = ProcessPool(
            max_workers=_PROCESSES,
            initializer=start_worker,
            initargs=(worker_bytes(self._limits.max_pixels), None),
            context=WORKERS,
        )
        pool.schedule(_nothing)  # starts the worker processes
        return pool

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]  # pebble leaves it bare
            self._pool.join()


def _nothing() -> None:
    """Do nothing; runs once to start the workers of a pool."""


def _jpeg(image: IndexedImage, pixels: int | None, limits: ImageLimits) -> bytes | Failure:
    try:
        shown = open_indexed(image.uri, image.key, limits)
        if pixels is not None:
            shown.thumbnail((pixels, pixels))
        return to_jpeg(shown)
    except ItemError as error:
        return Failure(error.reason, error.detail)


def _plain(image: IndexedImage, form: str, limits: ImageLimits) -> Plain | Failure:
    try:
        return plain_file(image.uri, image.key, form, limits)
    except ItemError as error:
        return Failure(error.reason, error.detail)


def _upload(
    data: bytes, spec: PreprocessSpec, limits: ImageLimits
) -> tuple[Pixels, bytes] | Failure:
    from mmindex.models.preprocess import to_pixels

    try:
        image = decode(data, limits)
    except ItemError as error:
        return Failure(error.reason, error.detail)
    pixels = to_pixels(image, spec)
    image.thumbnail((THUMB_PIXELS, THUMB_PIXELS))
    return pixels, to_jpeg(image)
