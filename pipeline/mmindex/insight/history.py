"""Read what a person liked and disliked: images with weights and times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mmindex.core.errors import DataError
from mmindex.insight.pairs import read_lines, read_table

_DAY_S: Final = 86_400.0
_TABLES: Final = (".csv", ".tsv", ".jsonl")
_IDS: Final = ("id", "image")


@dataclass(frozen=True, slots=True)
class Event:
    """One image that a person liked or disliked.

    Attributes:
        id: the id or uri of the image.
        weight: how much; negative for a dislike.
        time: seconds since 1970 (UTC); None: unknown.
    """

    id: str
    weight: float = 1.0
    time: float | None = None


def read_history(path: Path) -> tuple[Event, ...]:
    """Read events: one id per line, or a table with ``id`` and optionally ``weight`` and ``time``.

    A time is in ISO 8601 (UTC without an offset), or seconds since 1970.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the file cannot be read.
        DataError: a line is invalid, or there is none; the message names it.
    """
    if path.suffix.lower() in _TABLES:
        rows = read_table(path, (_IDS,), ("weight", "time"))
        events = [_event(place, row) for place, row in rows]
    else:
        events = [Event(line.strip()) for _, line in read_lines(path)]
    return checked(events, str(path))


def checked(events: Iterable[Event], where: str) -> tuple[Event, ...]:
    """Return the events if there are any, and if all or none of them have times.

    Raises:
        DataError: otherwise.
    """
    every = tuple(events)
    if not every:
        raise DataError(f"{where}: contains no images", "write one id per line")
    timed = sum(event.time is not None for event in every)
    if timed not in (0, len(every)):
        raise DataError(
            f"{where}: {len(every) - timed:,} of {len(every):,} entries have no time",
            "give every entry a time, or none",
        )
    return every


def given_events(history: Iterable[object]) -> tuple[Event, ...]:
    """Return the events of a list from Python: ids, mappings with the columns, or events.

    Raises:
        TypeError: an entry is something else.
        DataError: an entry is invalid, or there is none.
    """
    return checked(_given(history), "`history`")


def _given(history: Iterable[object]) -> Iterator[Event]:
    for number, one in enumerate(history):
        place = f"history[{number}]"
        if isinstance(one, str):
            yield Event(one)
        elif isinstance(one, Event):
            yield Event(one.id, _weight(place, one.weight), _time(place, one.time))
        elif isinstance(one, Mapping):
            yield _event(place, one)
        else:
            raise TypeError(f"{place}: expected an id, a mapping or an Event, not {one!r:.60}")


def _event(place: str, row: Mapping[str, object]) -> Event:
    name = next((str(row[column]) for column in _IDS if row.get(column)), "").strip()
    if not name:
        raise DataError(f"{place}: no id")
    return Event(name, _weight(place, row.get("weight")), _time(place, row.get("time")))


def _weight(place: str, value: object) -> float:
    if value is None or value == "":
        return 1.0
    number = _number(value)
    if number is None or not math.isfinite(number):
        raise DataError(
            f"{place}: the weight {value!r:.40} is not a finite number",
            "use a positive number for a like, and a negative one for a dislike",
        )
    return number


def _time(place: str, value: object) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return _seconds(value)
    number = _number(value)
    try:
        seconds = _seconds(datetime.fromisoformat(str(value))) if number is None else number
    except (ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise DataError(
            f"{place}: {value!r:.40} is not a time",
            "use ISO 8601 (2026-01-31T12:00:00), or seconds since 1970",
        )
    return seconds


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(value: object) -> float | None:
    """Return a number, or a text with one, as a float; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)  # type: ignore[arg-type]  # a TypeError is handled
    except (TypeError, ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Weighed:
    """The weights of images at one moment.

    Attributes:
        weights: by id or uri; the weights of repeated entries are added.
        future: the number of entries with a time in the future.
    """

    weights: Mapping[str, float]
    future: int


def weigh(events: Sequence[Event], now: float, half_life_days: float) -> Weighed:
    """Add up the weights of each image; a weight halves every ``half_life_days``.

    An entry with a time in the future counts as new. Only ratios of the weights matter: the largest
    decayed weight is 1 or -1, unless all are 0.
    """
    newest = max((min(event.time, now) for event in events if event.time is not None), default=now)
    largest = max((abs(event.weight) for event in events), default=0.0) or 1.0
    weights: dict[str, float] = {}
    future = 0
    for event in events:
        time = newest if event.time is None else min(event.time, now)
        future += event.time is not None and event.time > now
        share = 0.5 ** ((newest - time) / (_DAY_S * half_life_days))
        weights[event.id] = weights.get(event.id, 0.0) + share * (event.weight / largest)
    return Weighed(weights, future)
