"""``runs/<run_id>.json``: what one run did, for people, scripts and the next run's estimates.

Reading it imports nothing heavy: ``status`` and monitoring ask often.
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

if TYPE_CHECKING:  # `mmindex status` reads reports without paying for these
    from mmindex.core.progress import StageTimer
    from mmindex.runs.figures import Figures
    from mmindex.store.objects import Objects

Outcome = Literal["published", "unchanged", "failed"]
SUCCESSES = ("published", "unchanged")


class RunError(msgspec.Struct, frozen=True):
    """What stopped a run: the error's class, and what stood on stderr."""

    error: str
    message: str
    hint: str = ""


class RunReport(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        run_id: its name; sorts by time.
        outcome: ``failed`` also where a signal ended it.
        exit_code: of the command.
        started_at, ended_at: UTC, ISO 8601.
        wanted: the stages asked for.
        version: what the store shows afterwards; 0: nothing yet.
        counts: that version's.
        changes: images and captions added, removed, replaced, unchanged; None without a crawl.
        seconds: wall time by stage.
        bytes_written: objects written, by stage.
        rates: what each stage got through, a second.
        bottleneck: of encoding: the part that took longest, and how many images a second each
            part alone would have allowed.
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
        """Whether the store is known to be as the sources were."""
        return self.outcome in SUCCESSES

    @property
    def ended(self) -> datetime:
        """When it ended."""
        return datetime.fromisoformat(self.ended_at)

    @property
    def total_seconds(self) -> float:
        """Wall time from start to end."""
        return (self.ended - datetime.fromisoformat(self.started_at)).total_seconds()


def now() -> str:
    """The time as reports show it: UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(slots=True)
class Recorder:
    """Gathers what a run's report will say.

    Attributes:
        layout: the store.
        run_id: the run.
        wanted: stages asked for.
        timer: wall time by stage.
        figures: what the stages did; the run's context shares it.
        bytes_written: by stage.
        peak_rss_bytes_after: by stage.
        started_at: when.
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
        """Measure one stage, failed ones too: wall time, bytes written, peak memory."""
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
            shown: the version that the store shows now.
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
    """An error as reports show it."""
    hint = error.hint if isinstance(error, MmindexError) else ""
    text = " ".join(str(error).split()) or type(error).__name__
    return RunError(type(error).__name__, text, hint)


def load_report(layout: Layout, run_id: str) -> RunReport | None:
    """The report of one run; None where there is none that can be read."""
    return _load(layout, run_id)


def newest_first(layout: Layout) -> Iterator[RunReport]:
    """The reports that the store keeps; those that cannot be read are passed over.

    Run ids begin with their time, so that no file is opened that nobody asks for.

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
    """The newest run that ended well."""
    return next((report for report in newest_first(layout) if report.succeeded), None)


def _load(layout: Layout, run_id: str) -> RunReport | None:
    path = layout.run(run_id)
    try:
        data = path.read_bytes()
        report = msgspec.json.decode(data, type=RunReport)
        datetime.fromisoformat(report.started_at)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return None  # it is a note about a run, no part of any version
    return report if report.ended.tzinfo is not None else None
