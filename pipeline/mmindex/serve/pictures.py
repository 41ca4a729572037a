"""Pictures for the web, made in worker processes that may die: thumbnails, files, uploads.

What a worker does is bounded like a decode worker of a build: address space, time, pixels.
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
from mmindex.serve.problems import PictureError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmindex.models.preprocess import Pixels, PreprocessSpec
    from mmindex.search.hits import Picture

T = TypeVar("T")

THUMB_PIXELS: Final = 512
_PROCESSES: Final = 2
_TIMEOUT_S: Final = 20.0


class PictureWorkers:
    """The worker processes; started when first needed.

    Args:
        limits: those that the pictures of the corpus were crawled under.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = ImageLimits.of(limits)
        self._pool: ProcessPool | None = None
        self._starting = asyncio.Lock()

    async def thumbnail(self, picture: Picture) -> bytes:
        """A JPEG of an image of the corpus, at most ``THUMB_PIXELS`` wide and high.

        Raises:
            PictureError: it cannot be read or decoded, or its bytes are others now.
        """
        return await self._run(partial(_jpeg, picture, THUMB_PIXELS, self._limits))

    async def jpeg(self, picture: Picture) -> bytes:
        """An image of the corpus as a JPEG of full size; raises as :meth:`thumbnail`."""
        return await self._run(partial(_jpeg, picture, None, self._limits))

    async def plain(self, picture: Picture, form: str) -> Plain:
        """An image's file without metadata, or a JPEG of it; raises as :meth:`thumbnail`.

        Args:
            picture: an image of the corpus.
            form: its format, as Pillow calls it.
        """
        return await self._run(partial(_plain, picture, form, self._limits))

    async def upload(self, data: bytes, spec: PreprocessSpec) -> tuple[Pixels, bytes]:
        """What a model sees of a file's bytes, and a thumbnail; raises as :meth:`thumbnail`."""
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
        """End the workers."""
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]  # pebble leaves it bare
            self._pool.join()


def _nothing() -> None:
    """What a pool runs to come up."""


def _jpeg(picture: Picture, pixels: int | None, limits: ImageLimits) -> bytes | Failure:
    try:
        shown = open_indexed(picture.uri, picture.key, limits)
        if pixels is not None:
            shown.thumbnail((pixels, pixels))
        return to_jpeg(shown)
    except ItemError as error:
        return Failure(error.reason, error.detail)


def _plain(picture: Picture, form: str, limits: ImageLimits) -> Plain | Failure:
    try:
        return plain_file(picture.uri, picture.key, form, limits)
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
    return pixels, to_jpeg(picture)
