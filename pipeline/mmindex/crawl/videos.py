"""Examine videos in a separate process, which can crash or be killed."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Final, Self

from pebble import ProcessPool

from mmindex.core.records import ItemError, Reason
from mmindex.core.system import die_with_parent, limit_worker
from mmindex.core.workers import WORKERS, worker_deaths
from mmindex.media.images import ImageLimits
from mmindex.media.video import VideoInfo, probe_video

# More than the time limit for reading up to the first frame (mmindex.media.video).
_TIMEOUT_S: Final = 60.0
_MEMORY_BYTES: Final = 4 << 30


class VideoProber:
    """Probes one video at a time in a process that starts on first use; a context manager."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._pool: ProcessPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]  # pebble leaves it bare
            self._pool.join()

    def probe(self, path: str) -> VideoInfo:
        """Return the facts in the header and the first frame of a video.

        Raises:
            ItemError: the video is unusable, or it crashed or blocked the process.
        """
        if self._pool is None:
            self._pool = ProcessPool(max_workers=1, initializer=_start, context=WORKERS)
        future = self._pool.schedule(_probe, args=(path, self._limits), timeout=_TIMEOUT_S)
        try:
            with worker_deaths(_TIMEOUT_S):
                found: VideoInfo | tuple[Reason, str] = future.result()
        except BrokenProcessPool as error:
            self._pool = None  # the next video gets a new one
            raise ItemError(Reason.DECODER_DIED, str(error)) from None
        if isinstance(found, VideoInfo):
            return found
        raise ItemError(*found)


def _start() -> None:
    die_with_parent()
    limit_worker(_MEMORY_BYTES)


def _probe(path: str, limits: ImageLimits) -> VideoInfo | tuple[Reason, str]:
    try:
        return probe_video(path, limits)
    except ItemError as error:  # its constructor has two arguments, so it cannot be pickled
        return error.reason, error.detail
