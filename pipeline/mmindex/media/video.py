"""Frames of videos as images, based on FFmpeg (the extra ``video``).

The name of a frame consists of its video and a time: ``clip.mp4#t=12.0``
(https://www.w3.org/TR/media-frags/), in seconds from the first frame of the video. It is the frame
that is displayed at this time. Its key is derived from the content of the video and the time, so
checking whether it has changed needs no decoding.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final

from PIL import Image

from mmindex.core.records import ItemError, Reason
from mmindex.media.archive import item_error
from mmindex.media.images import ImageLimits, check_size
from mmindex.media.kinds import VIDEO, VIDEO_EXTENSIONS
from mmindex.media.photo import Fields, video_fields

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video import VideoFrame, VideoStream

# Only files, and no playlists, which would make FFmpeg open other files.
_DEMUXERS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo"
_OPTIONS: Final = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"}
_NAMES: Final = {"mov": "MP4", "matroska": "MKV"}
# Time limit for reading and decoding up to one frame; a minute of 4K takes half of it on one core.
_MOST_SECONDS: Final = 30.0
# With more frames, one video would dominate the results.
_MOST_FRAMES: Final = 200
_LONGEST_S: Final = 7 * 86_400.0
# Containers round times; a frame that is further back than this is missing.
_TOLERANCE_S: Final = 2.0
# In files without an index (MPEG), a seek can end after the time; the next one goes further back.
_BACK_S: Final = (0.0, 2.0, 10.0, 60.0, _LONGEST_S)
# Up to this size, the whole video is read for its key; of a larger one, this number of blocks.
_WHOLE_BYTES: Final = 64 << 20
_BLOCKS, _BLOCK_BYTES = 64, 256 << 10
_TIME: Final = re.compile(r"(.+(\.\w+))#t=(\d{1,7}(?:\.\d{1,3})?)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The facts in the header and the first frame of a video.

    Attributes:
        width, height: in pixels, as displayed.
        format: the container format.
        duration_s: in seconds; 0 if unknown.
        fields: the metadata, see :mod:`mmindex.media.photo`.
    """

    width: int
    height: int
    format: str
    duration_s: float
    fields: Fields = field(default_factory=dict)


def frame_uri(uri: str, time_s: float) -> str:
    """Return the name of a frame, for URIs and ids."""
    return f"{uri}#t={time_s:.1f}"


def split_frame(uri: str) -> tuple[str, float | None]:
    """Return the URI of the video and the time of a frame; None as time if it is not a frame."""
    found = _TIME.fullmatch(uri)
    if found is None or found[2].lower() not in VIDEO_EXTENSIONS or os.path.lexists(uri):
        return uri, None
    return found[1], float(found[3])


def frame_times(duration_s: float, interval_s: float) -> list[float]:
    """Return the times of the frames to index: the middle of each of several equal parts.

    There is one part per interval, at least one and at most 200; only the start if the length is
    unknown.
    """
    if duration_s <= 0:
        return [0.0]
    parts = min(max(round(duration_s / interval_s), 1), _MOST_FRAMES)
    # Rounded down, because rounding up could be after the end of a short video.
    return [int((part + 0.5) * duration_s / parts * 10) / 10 for part in range(parts)]


def frame_key(video_key: str, time_s: float) -> str:
    """Return the key of a frame, in hex."""
    return hashlib.sha256(frame_uri(video_key, time_s).encode("ascii")).hexdigest()


def video_key(path: str) -> str:
    """Return the key of a video in hex; for a large video, of a sample of its bytes.

    Raises:
        ItemError: the file cannot be read.
    """
    try:
        status = os.stat(path)  # noqa: PTH116  # names may hold bytes that are no UTF-8
        return _video_key(path, (status.st_size, status.st_mtime_ns, status.st_ino))
    except OSError as error:
        raise item_error(error, path) from error


@functools.lru_cache(maxsize=256)
def _video_key(path: str, stamp: tuple[int, int, int]) -> str:
    size = stamp[0]
    with open(path, "rb") as file:  # noqa: PTH123
        if size <= _WHOLE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(f"{size}\n".encode())
        for block in range(_BLOCKS):
            file.seek((size - _BLOCK_BYTES) * block // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()


def probe_video(path: str, limits: ImageLimits) -> VideoInfo:
    """Read the header of a video and decode its first frame.

    Raises:
        ItemError: it cannot be read, has no frames, or exceeds the limits.
    """
    with _opened(path) as (container, stream):
        first, _ = _shown_at(container, stream, 0.0, 0.0, limits)
        if first is None:
            raise ItemError(Reason.TRUNCATED, "no frame can be decoded")
        width, height = _upright(first, limits).size
        name = container.format.name.partition(",")[0]
        tags = {**container.metadata, **stream.metadata}
        return VideoInfo(
            width, height, _NAMES.get(name, name.upper()), _duration(container, stream),
            video_fields(tags),
        )  # fmt: skip


def read_frame(path: str, time_s: float, limits: ImageLimits) -> Image.Image:
    """Return the frame that is displayed at a time, RGB and upright.

    Raises:
        ItemError: as :func:`probe_video`, or the video ends before.
    """
    for back_s in _BACK_S:
        with _opened(path) as (container, stream):
            shown, ended = _shown_at(container, stream, time_s, max(time_s - back_s, 0.0), limits)
            shown_s = math.inf if shown is None else _time_of(shown, stream)
            if shown_s > time_s and back_s < time_s:
                continue
            if shown is None:
                break
            if ended and time_s > shown_s + _TOLERANCE_S:
                raise ItemError(Reason.TRUNCATED, f"the frames end at {shown_s:.1f} s")
            return _upright(shown, limits)
    raise ItemError(Reason.TRUNCATED, f"no frame at {time_s:.1f} s")


class _Reader:
    """A file for FFmpeg with a time limit."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._end = time.monotonic() + _MOST_SECONDS

    def check(self) -> None:
        """Raise an error after the time limit."""
        if time.monotonic() > self._end:
            raise ItemError(Reason.DECODER_DIED, f"took longer than {_MOST_SECONDS:g} s")

    def read(self, size: int) -> bytes:
        self.check()
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        self.check()
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def _opened(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    if not VIDEO.installed:
        raise ItemError(Reason.UNSUPPORTED, "a video: install mmindex[video] to read it")
    import av

    av.logging.set_level(av.logging.PANIC)
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # names may hold bytes that are no UTF-8
            if not os.fstat(file.fileno()).st_size:
                raise ItemError(Reason.EMPTY, "zero bytes")
            reader: Any = _Reader(file)
            with av.open(
                reader, container_options=_OPTIONS, metadata_errors="replace"
            ) as container:
                streams = [one for one in container.streams.video if one.codec_context is not None]
                if not streams:
                    raise ItemError(Reason.NOT_AN_IMAGE, "a video without frames")
                yield container, streams[0]
    except av.FFmpegError as error:
        detail = f"{type(error).__name__}: {error.strerror}"
        raise ItemError(Reason.CORRUPT, detail) from error
    except OSError as error:
        raise item_error(error, path) from error


def _shown_at(
    container: InputContainer,
    stream: VideoStream,
    time_s: float,
    from_s: float,
    limits: ImageLimits,
) -> tuple[VideoFrame | None, bool]:
    """Return the last frame up to a time (or the first frame), and whether it is the last one.

    Args:
        container, stream: the opened video.
        time_s: the time of the frame.
        from_s: start at the key frame before this time; 0: at the start, which some files require.
        limits: the limits for the size in the header.
    """
    check_size(stream.codec_context.width, stream.codec_context.height, limits)
    stream.codec_context.thread_count = 1  # other processes decode at the same time
    if from_s and stream.time_base:
        container.seek((stream.start_time or 0) + int(from_s / stream.time_base), stream=stream)
    shown: VideoFrame | None = None
    end = time.monotonic() + _MOST_SECONDS
    for frame in container.decode(stream):
        if time.monotonic() > end:
            raise ItemError(Reason.DECODER_DIED, f"took longer than {_MOST_SECONDS:g} s")
        if shown is not None and _time_of(frame, stream) > time_s:
            return shown, False
        shown = frame
    return shown, True


def _time_of(frame: VideoFrame, stream: VideoStream) -> float:
    """Return seconds from the first frame; 0 if unknown."""
    if frame.pts is None or frame.time_base is None:
        return 0.0
    return float((frame.pts - (stream.start_time or 0)) * frame.time_base)


def _upright(frame: VideoFrame, limits: ImageLimits) -> Image.Image:
    check_size(frame.width, frame.height, limits)
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]  # PyAV leaves it bare
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _duration(container: InputContainer, stream: VideoStream) -> float:
    """Return the duration in seconds; 0 if unknown or absurd."""
    import av

    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    else:
        seconds = (container.duration or 0) / av.time_base
    return round(seconds, 3) if 0 < seconds <= _LONGEST_S else 0.0
