"""Read items ahead of the one that is stored, and return them in the order of their source.

Reading waits for the disk and sha256 releases the interpreter lock, so a few threads hide the time
of both. Handing a file to a thread and back takes longer than reading a small file, so small files
are handed over in units.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from mmindex.core.records import SourceEvent, SourceItem
from mmindex.crawl.reading import Reading, ReadRules, ToRead, read_unit
from mmindex.crawl.stamps import Known, Stamps

_LOOK_AHEAD: Final = 2  # units for each thread
# At most 2 MiB in a unit of small files, which is less than a photo of a camera.
_ITEMS: Final = 32
_SMALL_BYTES: Final = 64 << 10
# Events that need no reading are passed on in groups of this many for each item of a unit.
_EVENTS_AN_ITEM: Final = 16


class Pending(Protocol):
    """A unit that is being read."""

    def result(self) -> tuple[Reading, ...]:
        """Wait for the readings, in the order of the items; raises as :func:`read_unit`."""


class Reader(AbstractContextManager["Reader"], Protocol):
    """Reads units; a context manager that ends unfinished work.

    Attributes:
        items: the largest number of items in a unit.
        small_bytes: a larger file, or one whose size is unknown, ends its unit; None: none does.
    """

    items: int
    small_bytes: int | None

    @property
    def ahead(self) -> int:
        """The number of units to read ahead."""

    def submit(self, unit: Sequence[ToRead]) -> Pending:
        """Begin to read a unit."""


class ThreadReader:
    """Reads items in threads of this process.

    Files in memory are limited to the number of threads times ``limits.max_bytes``.

    Args:
        rules: the rules of the crawl.
        threads: the number of threads.
        remote: whether each file takes a request, which should not wait for others.
    """

    small_bytes: int | None = _SMALL_BYTES

    def __init__(self, rules: ReadRules, threads: int, *, remote: bool) -> None:
        self._rules = rules
        self.items = 1 if remote else _ITEMS
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="crawl-read")
        self.ahead = _LOOK_AHEAD * threads

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, unit: Sequence[ToRead]) -> Pending:
        """Begin to read a unit."""
        return self._pool.submit(read_unit, self._rules, unit)


@dataclass(slots=True)
class _Stretch:
    """Consecutive events, the facts that are known about their items, and the items to read."""

    events: list[tuple[SourceEvent, Known | None]] = field(default_factory=list)
    unit: list[ToRead] = field(default_factory=list)


def read_ahead(
    events: Iterable[SourceEvent], stamps: Stamps, reader: Reader
) -> Iterator[tuple[SourceEvent, Reading | None]]:
    """Yield events in order; each item with its reading, other events with None."""
    waiting: deque[tuple[_Stretch, Pending | None]] = deque()
    for stretch in _stretches(events, stamps, reader):
        waiting.append((stretch, reader.submit(stretch.unit) if stretch.unit else None))
        while waiting and (waiting[0][1] is None or len(waiting) > reader.ahead):
            yield from _read(*waiting.popleft())
    while waiting:
        yield from _read(*waiting.popleft())


def _stretches(events: Iterable[SourceEvent], stamps: Stamps, reader: Reader) -> Iterator[_Stretch]:
    """Cut events into stretches whose items to read are one unit."""
    stretch = _Stretch()
    for event in events:
        known, full = None, False
        if isinstance(event, SourceItem):
            beside = event.sidecar.stamp if event.sidecar else None
            known = stamps.find(event.uri, event.stamp, beside) if event.stamp else None
            if known is None or (event.sidecar and known.sidecar is None):
                stretch.unit.append(ToRead.of(event, known))
                known = None
                full = len(stretch.unit) >= reader.items or not _is_small(event, reader)
        stretch.events.append((event, known))
        if full or len(stretch.events) >= _EVENTS_AN_ITEM * reader.items:
            yield stretch
            stretch = _Stretch()
    yield stretch


def _is_small(item: SourceItem, reader: Reader) -> bool:
    if reader.small_bytes is None:
        return True
    return item.stamp is not None and item.stamp[0] <= reader.small_bytes and not item.video


def _read(
    stretch: _Stretch, pending: Pending | None
) -> Iterator[tuple[SourceEvent, Reading | None]]:
    readings = iter(pending.result() if pending is not None else ())
    for event, known in stretch.events:
        if not isinstance(event, SourceItem):
            yield event, None
        elif known is None:
            yield event, next(readings)
        else:
            yield event, Reading(known.key, known, sidecar=known.sidecar, unchanged=True)
