"""A nightly build as a crontab line or as systemd units: pure text, quoted for whoever reads it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Final

from mmindex.core.errors import BusyError, UsageError

# Debian's cron cuts commands at 1,000 characters (MAX_COMMAND).
_CRON_CHARS: Final = 998
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./@=+,-]+")
_BUSY: Final = BusyError.exit_code


@dataclass(frozen=True, slots=True)
class Job:
    """What is to run.

    Attributes:
        command: how mmindex is started, with an absolute path.
        store: the store, absolute.
        at: local time of day.
        config: settings file, absolute, or None: the build goes on with what the store remembers.
        metrics: file for node exporter, absolute, or None.
        log: for cron: file that output is appended to, absolute.
    """

    command: tuple[str, ...]
    store: Path
    at: time
    config: Path | None = None
    metrics: Path | None = None
    log: Path | None = None

    @property
    def build(self) -> list[str]:
        """The build's words."""
        words = [*self.command, "build", "--store", str(self.store)]
        if self.config is not None:
            words += ["--config", str(self.config)]
        if self.metrics is not None:
            words += ["--metrics-file", str(self.metrics)]
        return words

    @property
    def collect(self) -> list[str]:
        """What removes old versions afterwards."""
        return [*self.command, "gc", "--store", str(self.store)]


def cron_line(job: Job) -> str:
    """A line for crontab(5).

    A run that finds another one going (exit 75) is not a failure. After one, the end of the log
    goes to stdout, which cron mails; otherwise nothing is printed.

    Raises:
        UsageError: a path holds a line break, or the line is longer than cron takes.
    """
    log = shlex.quote(str(job.log or f"{job.store}.log"))
    build, collect = shlex.join(job.build), shlex.join(job.collect)
    command = (
        f"{build} >>{log} 2>&1 && {collect} >>{log} 2>&1; code=$?; "
        f"[ $code -eq 0 ] || [ $code -eq {_BUSY} ] || {{ tail -n 5 {log}; exit $code; }}"
    )
    if not command.isprintable():
        raise UsageError(
            "a crontab line cannot contain line breaks or other control characters",
            "rename the store or the file, or use `mmindex schedule --systemd`",
        )
    escaped = command.replace("%", r"\%")  # cron takes a bare % for a line break
    if len(escaped.encode()) > _CRON_CHARS:
        raise UsageError(
            f"the command has {len(escaped.encode())} bytes; the limit of cron is {_CRON_CHARS}",
            "use shorter paths, for example links, or `mmindex schedule --systemd`",
        )
    return f"{job.at.minute} {job.at.hour} * * * {escaped}"


def unit_name(job: Job) -> str:
    """What the units are called, without their suffix."""
    return "mmindex-" + (re.sub(r"[^A-Za-z0-9_.]+", "-", job.store.name).strip("-") or "store")


def service_unit(job: Job) -> str:
    """The text of the systemd service: one build, then the collection of old versions."""
    return f"""\
[Unit]
Description=mmindex: bring {unit_name(job)} up to date
RequiresMountsFor={_quoted(str(job.store))}

[Service]
Type=oneshot
ExecStart={_exec(job.build)}
ExecStart={_exec(job.collect)}
# Another run holds the store: this is not a failure.
SuccessExitStatus={_BUSY}
Nice=10
IOSchedulingClass=idle
# SIGTERM to mmindex alone: it ends its workers and leaves the published version as it is.
KillMode=mixed
TimeoutStopSec=60
"""


def timer_unit(job: Job) -> str:
    """The text of the systemd timer."""
    return f"""\
[Unit]
Description=mmindex: every day, bring {unit_name(job)} up to date

[Timer]
OnCalendar=*-*-* {job.at:%H:%M}:00
# If the machine was off at that time, the run starts at the next boot.
Persistent=true

[Install]
WantedBy=timers.target
"""


def parse_at(text: str) -> time:
    """``HH:MM``.

    Raises:
        UsageError: it is not a time of day.
    """
    match = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})", text)
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise UsageError(f"`at={text!r}` is not a time of day", "for example `at=03:15`")
    return time(int(match[1]), int(match[2]))


def _exec(words: list[str]) -> str:
    """A command line by systemd.service(5); the colon keeps ``$`` from being expanded."""
    return ":" + " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """One word by systemd.syntax(7)."""
    if _PLAIN.fullmatch(word):
        return word
    escaped = "".join(map(_escaped, word))
    return f'"{escaped}"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char == "%":
        return "%%"
    return char if char.isprintable() else "".join(f"\\x{byte:02x}" for byte in char.encode())
