"""A nightly build as a crontab line or systemd units, quoted for cron, systemd and the shell."""

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
    """A scheduled job.

    Attributes:
        command: the command that starts mmindex, with an absolute path.
        store: the absolute path of the store.
        at: the local time of day.
        config: the absolute path of the settings file; None for the settings of the store.
        metrics: the absolute path of the file for node exporter, or None.
        log: for cron, the absolute path of the file for output.
    """

    command: tuple[str, ...]
    store: Path
    at: time
    config: Path | None = None
    metrics: Path | None = None
    log: Path | None = None

    @property
    def build(self) -> list[str]:
        """The arguments of the build."""
        words = [*self.command, "build", "--store", str(self.store)]
        if self.config is not None:
            words += ["--config", str(self.config)]
        if self.metrics is not None:
            words += ["--metrics-file", str(self.metrics)]
        return words

    @property
    def collect(self) -> list[str]:
        """The arguments of gc, which runs after the build."""
        return [*self.command, "gc", "--store", str(self.store)]


def cron_line(job: Job) -> str:
    """Return a line for crontab(5).

    If another run is in progress (exit code 75), this is not a failure. After a failure, the end of
    the log goes to stdout, which cron mails; otherwise nothing is printed.

    Raises:
        UsageError: a path contains a line break, or the line exceeds the limit of cron.
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
    escaped = command.replace("%", r"\%")  # cron treats an unescaped % as a line break
    if len(escaped.encode()) > _CRON_CHARS:
        raise UsageError(
            f"the command has {len(escaped.encode())} bytes; the limit of cron is {_CRON_CHARS}",
            "use shorter paths, for example links, or `mmindex schedule --systemd`",
        )
    return f"{job.at.minute} {job.at.hour} * * * {escaped}"


def unit_name(job: Job) -> str:
    """Return the name of the units, without suffix."""
    return "mmindex-" + (re.sub(r"[^A-Za-z0-9_.]+", "-", job.store.name).strip("-") or "store")


def service_unit(job: Job) -> str:
    """Return the text of the systemd service: a build, then gc."""
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
    """Return the text of the systemd timer."""
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
    """Parse ``HH:MM``.

    Raises:
        UsageError: it is not a time of day.
    """
    match = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})", text)
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise UsageError(f"`at={text!r}` is not a time of day", "for example `at=03:15`")
    return time(int(match[1]), int(match[2]))


def _exec(words: list[str]) -> str:
    """Quote a command line for systemd.service(5); the colon prevents the expansion of ``$``."""
    return ":" + " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """Quote a word for systemd.syntax(7)."""
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
