"""Log events on stderr: lines of text, or one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from mmindex.core.progress import Event
from mmindex_cli.flags import as_flags

LogFormat = Literal["text", "json"]


def configure_logging(log_format: LogFormat, run_id: str, *, verbose: bool = False) -> None:
    """Send log events to stderr.

    In JSON, every event has ``timestamp``, ``level``, ``run_id``, ``stage`` and ``event``. Log
    records and warnings of libraries become events too, so that nothing else is on stderr.
    """
    ours, root = logging.getLogger("mmindex"), logging.getLogger()
    ours.setLevel(logging.DEBUG if verbose else logging.INFO)
    for logger in (ours, root):  # a second command in one process
        for handler in [h for h in logger.handlers if isinstance(h, _Stderr)]:
            logger.removeHandler(handler)
    if log_format == "json":
        root.setLevel(logging.WARNING)
        root.addHandler(_Stderr(_JsonFormatter(run_id)))
        logging.captureWarnings(True)
    else:
        ours.addHandler(_Stderr(_TextFormatter()))


class _Stderr(logging.Handler):
    """Writes to stderr without breaking a progress bar.

    Each line is written with its newline in one system call, so a killed process leaves no partial
    line. If writing fails, the run fails: the error is not caught.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        from tqdm import tqdm  # here, because many commands log nothing

        line = self.format(record)
        with tqdm.external_write_mode(file=sys.stderr):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


class _TextFormatter(logging.Formatter):
    """``warning: stage: message  name=value``; the level ``info`` is not shown."""

    def format(self, record: logging.LogRecord) -> str:
        mark = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{mark}{_stage(record)}: {as_flags(record.getMessage())}"


class _JsonFormatter(logging.Formatter):
    """One JSON object per line, in ASCII."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._run_id = run_id

    def format(self, record: logging.LogRecord) -> str:
        event = record.msg if isinstance(record.msg, Event) else None
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        values = {"logger": record.name} if event is None else event.values
        return json.dumps(
            {
                "run_id": self._run_id,
                "stage": _stage(record),
                **values,
                "event": record.getMessage().strip() if event is None else event.message,
                "level": record.levelname.lower(),
                "timestamp": stamp,
            },
            default=repr,
        )


def _stage(record: logging.LogRecord) -> str:
    """Return the stage of an mmindex event, or the name of the library."""
    package, _, stage = record.name.partition(".")
    return stage if package == "mmindex" else "library"
