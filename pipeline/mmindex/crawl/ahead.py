"""Read items ahead of the one that is stored, and return them in the order of their source."""

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

_LOOK_AHEAD: Final = 2  # for each thread
# Events that need no reading are passed on in groups of this many for each item of a unit.
_EVENTS_AN_ITEM: Final = 16


class Pending(Protocol):
    """A unit that is being read."""

    def result(self) -> tuple[Reading, ...]:
        """Wait for the readings, in the order of the items; raises as :func:`read_unit`."""


class Reader(AbstractContextManager["Reader"], Protocol):
    """Reads units; a context manager that ends unfinished work.

    Attributes:
        items: the number of items in a unit.
    """

    items: int

    @property
    def ahead(self) -> int:
        """The number of units to read ahead."""

    def submit(self, unit: Sequence[ToRead]) -> Pending:
        """Begin to read a unit."""


class ThreadReader:
    """Reads items in threads of this process, one at a time.

    Files in memory are limited to the number of threads times ``limits.max_bytes``.
    """

    items = 1

    def __init__(self, rules: ReadRules, threads: int) -> None:
        self._rules = rules
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
    for stretch in _stretches(events, stamps, reader.items):
        waiting.append((stretch, reader.submit(stretch.unit) if stretch.unit else None))
        while waiting and (waiting[0][1] is None or len(waiting) > reader.ahead):
            yield from _read(*waiting.popleft())
    while waiting:
        yield from _read(*waiting.popleft())


def _stretches(events: Iterable[SourceEvent], stamps: Stamps, items: int) -> Iterator[_Stretch]:
    """Cut events into stretches with at most ``items`` items to read."""
    stretch = _Stretch()
    for event in events:
        known = None
        if isinstance(event, SourceItem):
            beside = event.sidecar.stamp if event.sidecar else None
            known = stamps.find(event.uri, event.stamp, beside) if event.stamp else None
            if known is None or (event.sidecar and known.sidecar is None):
                stretch.unit.append(ToRead.of(event, known))
                known = None
        stretch.events.append((event, known))
        if len(stretch.unit) >= items or len(stretch.events) >= _EVENTS_AN_ITEM * items:
            yield stretch
            stretch = _Stretch()
    yield stretch


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
