"""Read the files of later images in threads while the rows of earlier ones are made.

Reading waits for the disk and sha256 releases the interpreter lock, so a few threads hide the time
of both. Handing a file to a thread and back takes longer than reading a small file, so small files
are handed over in batches.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from mmindex.core.records import ItemError, SourceEvent, SourceItem
from mmindex.crawl.stamps import Known, Stamps
from mmindex.media.video import video_key

_LOOK_AHEAD: Final = 2  # batches for each reader
# At most 2 MiB in a batch, which is less than a photo of a camera.
_BATCH: Final = 32
_SMALL_BYTES: Final = 64 << 10
# Events that need no reading, such as those of unchanged files, are also limited.
_MOST_EVENTS: Final = 256


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bytes of an image, or its known facts, and the bytes of its sidecar."""

    image: bytes | Known | None  # None for a video, of which only the key was computed
    key: str
    sidecar: bytes | None = None


_Result: TypeAlias = "Loaded | ItemError | OSError"


@dataclass(slots=True)
class _Batch:
    """Files that one thread reads, one after the other."""

    items: list[tuple[SourceItem, Known | None]] = field(default_factory=list)
    results: Future[list[_Result]] | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """A file that is being read."""

    readers: _Readers
    batch: _Batch
    place: int

    def result(self) -> Loaded:
        """Wait for the file.

        Raises:
            ItemError: it cannot be read.
        """
        loaded = self.readers.wait(self.batch)[self.place]
        if isinstance(loaded, Exception):
            raise loaded
        return loaded


@dataclass(slots=True)
class _Readers:
    """The threads, and the batch that is being filled."""

    pool: ThreadPoolExecutor
    most: int
    open: _Batch = field(default_factory=_Batch)

    def add(self, item: SourceItem, known: Known | None) -> Pending:
        small = item.stamp is not None and item.stamp[0] <= _SMALL_BYTES and not item.video
        if not small:
            self.start(self.open)
        pending = Pending(self, self.open, len(self.open.items))
        self.open.items.append((item, known))
        if not small or len(self.open.items) >= self.most:
            self.start(self.open)
        return pending

    def start(self, batch: _Batch) -> None:
        if batch.results is None and batch.items:
            batch.results = self.pool.submit(_load_all, batch.items)
        if batch is self.open:
            self.open = _Batch()

    def wait(self, batch: _Batch) -> list[_Result]:
        self.start(batch)
        assert batch.results is not None  # noqa: S101 # it holds at least the pending file
        return batch.results.result()


Event: TypeAlias = "tuple[SourceEvent, Pending | Known | None]"


def load_ahead(
    events: Iterable[SourceEvent], stamps: Stamps, threads: int, *, remote: bool
) -> Iterator[Event]:
    """Yield events in order while a few threads read the files of later events.

    Args:
        events: the events of a source.
        stamps: the cache of unchanged files, which are not read.
        threads: number of readers.
        remote: whether each file takes a request, which should not wait for others.
    """
    waiting: deque[Event] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="crawl-read") as pool:
        readers = _Readers(pool, 1 if remote else _BATCH)
        batches: deque[_Batch] = deque()
        try:
            for event in events:
                found: Pending | Known | None = None
                if isinstance(event, SourceItem):
                    beside = event.sidecar.stamp if event.sidecar else None
                    found = stamps.find(event.uri, event.stamp, beside) if event.stamp else None
                    if found is None or (event.sidecar and found.sidecar is None):
                        found = readers.add(event, found)
                        if not batches or batches[-1] is not found.batch:
                            batches.append(found.batch)
                waiting.append((event, found))
                while len(batches) > _LOOK_AHEAD * threads or len(waiting) > _MOST_EVENTS:
                    yield from _next(waiting, batches)
            while waiting:
                yield from _next(waiting, batches)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _next(waiting: deque[Event], batches: deque[_Batch]) -> Iterator[Event]:
    """Yield the next event, and forget its batch with the last of its files."""
    event, found = waiting.popleft()
    yield event, found
    if isinstance(found, Pending) and found.place == len(found.batch.items) - 1:
        batches.popleft()


def _load_all(items: list[tuple[SourceItem, Known | None]]) -> list[_Result]:
    results: list[_Result] = []
    for item, known in items:
        try:
            results.append(_load(item, known))
        except (ItemError, OSError) as error:
            results.append(error)
    return results


def _load(item: SourceItem, known: Known | None) -> Loaded:
    sidecar = None
    if item.sidecar is not None:
        with suppress(ItemError, OSError):  # counted where it is needed
            sidecar = item.sidecar.read()
    if known is not None:
        return Loaded(known, known.key, sidecar)
    if item.video:
        return Loaded(None, video_key(item.video), sidecar)
    data = item.read()
    return Loaded(data, hashlib.sha256(data).hexdigest(), sidecar)
