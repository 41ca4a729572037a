"""``runs/<run_id>.json``: the report of a run, for people, scripts and later estimates.

Reading it imports no large package, because ``status`` and monitoring do so often.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

import mmindex
from mmindex.core.errors import MmindexError, exit_code_of, os_errors
from mmindex.core.system import peak_memory_bytes
from mmindex.store import publish
from mmindex.store.layout import Layout
from mmindex.store.manifest import Counts, Manifest

if TYPE_CHECKING:  # `mmindex status` reads reports without importing these
    from mmindex.core.progress import StageTimer
    from mmindex.runs.figures import Figures
    from mmindex.store.objects import Objects

Outcome = Literal["published", "unchanged", "failed"]
SUCCESSES = ("published", "unchanged")


class RunError(msgspec.Struct, frozen=True):
    """What stopped a run: the error's class, and the text on stderr."""

    error: str
    message: str
    hint: str = ""


class RunReport(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        run_id: its name; sorts by time.
        outcome: ``failed`` also if a signal ended it.
        exit_code: exit code of the command.
        started_at, ended_at: UTC, ISO 8601.
        wanted: the requested stages.
        version: the published version afterwards; 0 if there is none.
        counts: that version's counts.
        changes: images and captions added, removed, replaced, unchanged; None without a crawl.
        seconds: wall time by stage.
        bytes_written: objects written, by stage.
        rates: items per second, by stage.
        bottleneck: of encoding: the slowest part, and how many images per second each part alone
            could process.
        peak_rss_bytes: of the process.
        peak_rss_bytes_after: the peak so far at the end of each stage.
        peak_child_rss_bytes: of its largest child.
        reports: the stages' own figures.
        error: why it failed.
    """

    run_id: str
    outcome: Outcome
    exit_code: int
    started_at: str
    ended_at: str
    wanted: tuple[str, ...] = ()
    version: int = 0
    counts: Counts | None = None
    changes: dict[str, dict[str, int]] | None = None
    seconds: dict[str, float] = {}
    bytes_written: dict[str, int] = {}
    rates: dict[str, dict[str, float]] = {}
    bottleneck: dict[str, Any] | None = None
    peak_rss_bytes: int = 0
    peak_rss_bytes_after: dict[str, int] = {}
    peak_child_rss_bytes: int = 0
    reports: dict[str, Any] = {}
    error: RunError | None = None
    mmindex: str = ""
    python: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the store is known to match the sources."""
        return self.outcome in SUCCESSES

    @property
    def ended(self) -> datetime:
        """The time when it ended."""
        return datetime.fromisoformat(self.ended_at)

    @property
    def total_seconds(self) -> float:
        """The wall time from start to end."""
        return (self.ended - datetime.fromisoformat(self.started_at)).total_seconds()


def now() -> str:
    """Return the time in the format of reports: UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(slots=True)
class Recorder:
    """Collects the content of a run's report.

    Attributes:
        layout: the store.
        run_id: the run.
        wanted: the requested stages.
        timer: wall time by stage.
        figures: the stages' figures, shared with the run's context.
        bytes_written: by stage.
        peak_rss_bytes_after: by stage.
        started_at: start time.
    """

    layout: Layout
    run_id: str
    wanted: Sequence[str]
    timer: StageTimer
    figures: Figures
    bytes_written: dict[str, int] = field(default_factory=dict)
    peak_rss_bytes_after: dict[str, int] = field(default_factory=dict)
    started_at: str = field(default_factory=now)

    @contextmanager
    def stage(self, name: str, objects: Objects) -> Iterator[None]:
        """Measure one stage, even if it fails: wall time, bytes written, peak memory."""
        before = objects.bytes_written
        try:
            with self.timer.measure(name):
                yield
        finally:
            self.bytes_written[name] = objects.bytes_written - before
            self.peak_rss_bytes_after[name] = peak_memory_bytes()

    def write(
        self, outcome: Outcome, shown: Manifest | None, error: BaseException | None = None
    ) -> RunReport:
        """Write the report and return it.

        Args:
            outcome: how the run ended.
            shown: the version that is published now.
            error: what ended a failed run.

        Raises:
            MmindexError: it cannot be written.
        """
        seconds = {name: round(value, 3) for name, value in self.timer.seconds.items()}
        figures = self.figures.record()
        changes = self.figures.changes
        report = RunReport(
            run_id=self.run_id,
            outcome=outcome,
            exit_code=0 if error is None else exit_code_of(error),
            started_at=self.started_at,
            ended_at=now(),
            wanted=tuple(self.wanted),
            version=shown.version if shown is not None else 0,
            counts=shown.counts if shown is not None else None,
            changes=None if changes is None else msgspec.to_builtins(changes),
            seconds=seconds,
            bytes_written=self.bytes_written,
            rates=self.figures.rates(seconds),
            bottleneck=figures.get("encode", {}).get("bottleneck"),
            peak_rss_bytes=peak_memory_bytes(),
            peak_rss_bytes_after=self.peak_rss_bytes_after,
            peak_child_rss_bytes=peak_memory_bytes(of_children=True),
            reports=figures,
            error=None if error is None else describe_error(error),
            mmindex=mmindex.__version__,
            python=platform.python_version(),
        )
        data = msgspec.json.format(msgspec.json.encode(report)) + b"\n"
        publish.write_file(self.layout, self.layout.run(self.run_id), data)
        return report


def describe_error(error: BaseException) -> RunError:
    """Return an error in the form of reports."""
    hint = error.hint if isinstance(error, MmindexError) else ""
    text = " ".join(str(error).split()) or type(error).__name__
    return RunError(type(error).__name__, text, hint)


def load_report(layout: Layout, run_id: str) -> RunReport | None:
    """Read the report of one run; None if there is no readable one."""
    return _load(layout, run_id)


def newest_first(layout: Layout) -> Iterator[RunReport]:
    """Yield the store's reports, newest first; unreadable ones are skipped.

    Run ids begin with their time, so a report is opened only when the caller reaches it.

    Raises:
        MmindexError: the folder cannot be read.
    """
    with os_errors(layout.runs_dir):
        names = sorted((path.stem for path in layout.runs_dir.glob("*.json")), reverse=True)
    for name in names:
        report = _load(layout, name)
        if report is not None:
            yield report


def last_success(layout: Layout) -> RunReport | None:
    """Return the newest successful run."""
    return next((report for report in newest_first(layout) if report.succeeded), None)


def _load(layout: Layout, run_id: str) -> RunReport | None:
    path = layout.run(run_id)
    try:
        data = path.read_bytes()
        report = msgspec.json.decode(data, type=RunReport)
        datetime.fromisoformat(report.started_at)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return None  # the report of a run is not part of any version
    return report if report.ended.tzinfo is not None else None
