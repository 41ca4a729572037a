"""Logs, metrics and run reports are complete at any time (guarantee 18)."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.fakestore import write_photos
from support.tally import Tally
from support.workloads import Bench
from support.zygote import Ended

pytestmark = pytest.mark.timeout(1800)
RUNS = (500, 25)  # full, bounded
# Share of runs to kill; the others end by themselves, so that there is something to read.
KILLED = 0.75
_LAST = "mmindex_last_run_timestamp_seconds"
_SUCCESS = "mmindex_last_success_timestamp_seconds"


class Reader:
    """Reads continuously what a monitoring system reads, in a thread."""

    def __init__(self, metrics: Path, reports: Path) -> None:
        self._metrics, self._reports = metrics, reports
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._latest: dict[str, float] = {}
        self.reads = 0
        self.errors: list[str] = []

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._look(self._metrics, self._parse)
            for path in self._reports.glob("*.json"):
                self._look(path, json.loads)
            time.sleep(0.001)

    def _look(self, path: Path, parse: object) -> None:
        try:
            text = path.read_text()
        except FileNotFoundError:
            return
        self.reads += 1
        try:
            assert callable(parse)
            parse(text)
        except (ValueError, AssertionError) as error:
            self.errors.append(f"{path.name}: {error!r}: {text[:200]!r}")

    def _parse(self, text: str) -> None:
        """All metrics of a run exist, and no timestamp decreases."""
        found = {f.name: f.samples[0].value for f in text_string_to_metric_families(text)}
        assert text.endswith("\n")
        assert _LAST in found
        for name in (_LAST, _SUCCESS):
            assert found.get(name, 0.0) >= self._latest.get(name, 0.0), f"{name} went back"
        self._latest.update(found)


def broken_lines(text: str) -> list[str]:
    """Return the lines of a log that are not a complete JSON object."""
    lines = text.split("\n")
    bad = [lines[-1]] if lines[-1] else []
    for line in lines[:-1]:
        try:
            event = json.loads(line)
        except ValueError:
            bad.append(line)
        else:
            if not {"run_id", "stage", "event", "level", "timestamp"} <= event.keys():
                bad.append(line)
    return bad


def run_once(bench: Bench, argv: list[str], kill_after: float | None) -> Ended:
    pid = bench.zygote.start("command", argv=argv)
    bench.zygote.release()
    if kill_after is not None:
        time.sleep(kill_after)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bench.zygote.wait()


def test_a_reader_never_sees_a_partial_line_or_file(
    bench: Bench, fast_dir: Path, full: bool, tally: Tally
) -> None:
    folder = fast_dir / "logs"
    photos, metrics = folder / "photos", folder / "mmindex.prom"
    argv = ["build", "--store", str(folder / "store"), "--source", f"folder:{photos}"]
    argv += ["--workers", "0", "--log-format", "json", "--metrics-file", str(metrics)]
    argv += ["--max-removed", "1"]
    write_photos(photos, {f"{n}.jpg": n for n in range(6)})
    start = time.monotonic()
    assert run_once(bench, argv, None).code == 0
    whole = time.monotonic() - start
    dice = random.Random(tally.seed("logs and metrics"))
    killed = lines = 0
    with Reader(metrics, folder / "store" / "runs") as reader:
        for number in range(RUNS[0 if full else 1]):
            write_photos(photos, {f"{n}.jpg": n for n in range(number % 50, number % 50 + 6)})
            kill = dice.uniform(0, whole) if dice.random() < KILLED else None
            ended = run_once(bench, argv, kill)
            assert ended.code in (0, None), ended
            bad = broken_lines(ended.stderr)
            assert not bad, bad
            killed += ended.code is None
            lines += ended.stderr.count("\n")
    assert not reader.errors, reader.errors[:5]
    assert killed
    assert reader.reads
    tally.add("logs and metrics", runs=RUNS[0 if full else 1], killed=killed)
    tally.add("logs and metrics", files_read=reader.reads, lines_read=lines, broken=0)
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert len(left) <= 1, "what killed writers leave is taken away by the next one"
