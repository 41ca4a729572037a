"""Progress and log events: stderr only, bars only where a terminal watches."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import structlog
from tqdm import tqdm

T = TypeVar("T")
LogFormat = Literal["text", "json"]


def configure_logging(log_format: LogFormat, run_id: str, *, verbose: bool = False) -> None:
    """Send log events to stderr, as lines for people or as one JSON object a line.

    Control characters in values (file names, captions) come out escaped in both forms. In JSON,
    every event has ``timestamp``, ``level``, ``run_id``, ``stage`` and ``event``, and what
    libraries log or warn of becomes an event too, so that nothing else is on stderr.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=True)
        if log_format == "json"
        else _render_text
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if verbose else logging.INFO
        ),
        logger_factory=lambda *_: structlog.WriteLogger(_TqdmSafeStderr()),  # type: ignore[arg-type]  # writes and flushes, as it needs
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    if log_format == "json":
        structlog.contextvars.bind_contextvars(run_id=run_id)
        logging.basicConfig(level=logging.WARNING, handlers=[_Relay()], force=True)
        logging.captureWarnings(True)


class _Relay(logging.Handler):
    """Turns what libraries log into events."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        log = get_logger("library")
        log.log(record.levelno, record.getMessage().strip(), logger=record.name)


class _TqdmSafeStderr:
    """Writes to stderr without tearing a progress bar that stands there.

    A line comes whole, with its end, and goes to the kernel in one call: a process that is killed
    leaves no half of it.
    """

    def write(self, text: str) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _render_text(_logger: object, _method: str, event: structlog.typing.EventDict) -> str:
    level = event.pop("level")
    event.pop("timestamp")
    stage = event.pop("stage", "")
    message = str(event.pop("event"))
    values = " ".join(f"{key}={_plain(value)}" for key, value in event.items())
    prefix = f"{stage}: " if stage else ""
    mark = "" if level == "info" else f"{level}: "
    return f"{mark}{prefix}{message}{'  ' + values if values else ''}"


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    if text.isprintable() and " " not in text:
        return text
    return ascii(text) if not text.isprintable() else f'"{text}"'


def get_logger(stage: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose events carry the stage's name."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger().bind(stage=stage)
    return logger


def bar(items: Iterable[T], *, total: int | None, label: str, unit: str) -> Iterable[T]:
    """Iterate with a progress bar on stderr; silent unless stderr is a terminal."""
    return tqdm(items, total=total, desc=label, unit=f" {unit}s", file=sys.stderr, disable=None)


@contextmanager
def counter(*, total: int | None, label: str, unit: str) -> Iterator[tqdm]:  # type: ignore[type-arg]  # tqdm is generic in its stubs only
    """A progress bar that is moved by hand with ``update(n)``; bytes are shown as kB, MB, ..."""
    is_bytes = unit == "B"
    with tqdm(
        total=total,
        desc=label,
        unit=unit if is_bytes else f" {unit}s",
        unit_scale=is_bytes,
        file=sys.stderr,
        disable=None,
    ) as progress:
        yield progress


@dataclass(slots=True)
class StageTimer:
    """Seconds spent by named stages and by their parts."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the block's wall time to ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
