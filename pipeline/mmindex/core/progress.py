"""Log events, progress bars and stage times.

Events go to the logger ``mmindex`` of the standard library's ``logging``; nothing is shown unless
the program configures it. Bars are drawn on stderr if a program turns them on (:func:`show_bars`)
and stderr is a terminal.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")

logging.getLogger("mmindex").addHandler(logging.NullHandler())
_bars_shown = False


@dataclass(frozen=True, slots=True)
class Event:
    """The ``msg`` of a log record of mmindex: a message with named values.

    As text it is ``message  name=value name=value``; formatters can use the values (Python's
    logging cookbook, "Implementing structured logging"). Control characters in values (file names,
    captions) are escaped.
    """

    stage: str
    message: str
    values: Mapping[str, object]

    def __str__(self) -> str:
        values = " ".join(f"{name}={_plain(value)}" for name, value in self.values.items())
        return f"{self.message}{'  ' + values if values else ''}"


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    if text.isprintable() and " " not in text:
        return text
    return ascii(text) if not text.isprintable() else f'"{text}"'


@dataclass(frozen=True, slots=True)
class StageLogger:
    """Logs the events of one stage; values are given by name."""

    stage: str

    def info(self, message: str, /, **values: object) -> None:
        """Log an event."""
        self._log(logging.INFO, message, values)

    def warning(self, message: str, /, **values: object) -> None:
        """Log a warning."""
        self._log(logging.WARNING, message, values)

    def error(self, message: str, /, **values: object) -> None:
        """Log a failure that does not end the program."""
        self._log(logging.ERROR, message, values)

    def _log(self, level: int, message: str, values: Mapping[str, object]) -> None:
        logger = logging.getLogger(f"mmindex.{self.stage}")
        # 3: the record names the caller of info() or warning().
        logger.log(level, Event(self.stage, message, values), stacklevel=3)


def get_logger(stage: str) -> StageLogger:
    """Return the logger of a stage, ``mmindex.<stage>``."""
    return StageLogger(stage)


def show_bars(shown: bool) -> None:
    """Turn progress bars in this process on (if stderr is a terminal) or off."""
    global _bars_shown  # noqa: PLW0603 # one stderr, one choice, made by the program
    _bars_shown = shown


@contextmanager
def bars(shown: bool) -> Iterator[None]:
    """Turn progress bars on or off during the block."""
    before = _bars_shown
    show_bars(shown)
    try:
        yield
    finally:
        show_bars(before)


def new_run_id() -> str:
    """Return a new run id: sortable by time, unique without coordination."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


def bar(items: Iterable[T], *, total: int | None, label: str, unit: str) -> Iterable[T]:
    """Iterate with a progress bar on stderr, if bars are shown."""
    from tqdm import tqdm

    return tqdm(
        items, total=total, desc=label, unit=f" {unit}s", file=sys.stderr, disable=_disabled()
    )


@contextmanager
def counter(*, total: int | None, label: str, unit: str) -> Iterator[tqdm]:  # type: ignore[type-arg]  # tqdm is generic in its stubs only
    """Return a progress bar to advance with ``update(n)``; bytes are shown as kB, MB, ..."""
    from tqdm import tqdm

    with tqdm(
        total=total,
        desc=label,
        unit=unit if unit == "B" else f" {unit}s",
        unit_scale=unit == "B",
        file=sys.stderr,
        disable=_disabled(),
    ) as progress:
        yield progress


def _disabled() -> bool | None:
    return None if _bars_shown else True  # None: tqdm asks whether stderr is a terminal


@dataclass(slots=True)
class StageTimer:
    """The seconds spent in named stages and their parts."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
