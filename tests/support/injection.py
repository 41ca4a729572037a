"""Break one system call of a workload's run, and check the result."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from support.strace import CHANGING, GROWING, READING, Call, Tracer, below, store_calls
from support.workloads import Workload
from support.zygote import Ended

# The number of calls can differ from the traced run, because libraries open files at any time.
_NEARBY: Final = (0, -1, 1, -2, 2, -4, 4, -8, 8, -16)
_DATA_EXIT: Final = 65
_PERMISSION_EXIT: Final = 77
_STORAGE_EXIT: Final = 74
_FD_PATH: Final = re.compile(r"\(\d+<(?P<path>[^>]+)>")
_RENAME: Final = re.compile(r"\"(?P<source>[^\"]+)\", .*\"(?P<target>[^\"]+)\"")


@dataclass(frozen=True, slots=True)
class Point:
    """A call and its fault: ``KILL``, or an error such as ``EIO``."""

    call: Call
    fault: str

    @property
    def inject(self) -> str:
        """Return the argument of ``strace -e inject=``."""
        what = "signal=KILL" if self.fault == "KILL" else f"error={self.fault}"
        return f"{self.call.name}:{what}:when={self.call.number}"

    def later(self, calls: int) -> Point:
        """Return the point this number of calls later."""
        return replace(self, call=replace(self.call, number=max(1, self.call.number + calls)))

    def __str__(self) -> str:
        return f"{self.inject} ({self.call.text[:160]})"


def list_calls(workload: Workload, job: str = "command") -> list[Call]:
    """Return every call on the store in an undisturbed run."""
    workload.reset()
    log = workload.bench.folder / "strace.log"
    pid = workload.start(job)
    with Tracer(pid, log, [*CHANGING, *READING]):
        workload.bench.zygote.release()
        ended = workload.bench.zygote.wait()
    assert ended.code == 0, ended
    return store_calls(log, workload.store, pid)


def points(calls: Sequence[Call], fault: str) -> list[Point]:
    """Return the calls at which ``fault`` has an effect; READ_EIO is EIO at a reading call."""
    if fault == "READ_EIO":
        return [Point(call, "EIO") for call in calls if not call.changes]
    changing = [call for call in calls if call.changes]
    if fault == "ENOSPC":
        changing = [call for call in changing if call.name in GROWING]
    return [Point(call, fault) for call in changing]


def sample(found: Sequence[Point], count: int | None, seed: int) -> list[Point]:
    """Return all points, or ``count`` of them: about half evenly spaced, half at random."""
    if count is None or count >= len(found):
        return list(found)
    even = range(0, len(found), max(1, 2 * len(found) // count))
    rest = [number for number in range(len(found)) if number not in even]
    more = random.Random(seed).sample(rest, max(0, count - len(even)))
    return [found[number] for number in sorted([*even, *more])][:count]


def try_point(workload: Workload, point: Point, job: str = "command") -> list[str]:
    """Run with one failing call; return the violations that the oracle finds, one line each."""
    log = workload.bench.folder / "strace.log"
    for calls in _NEARBY:
        ended = _broken_run(workload, point.later(calls), job, log)
        if _reached(workload, point, log, ended):
            break
    else:
        return [f"the point was not reached: {ended}"]
    found = []
    if point.fault != "KILL":
        found += _reported(point, ended) + _failed_sync_is_final(log, ended)
    return found + workload.violations(ended.code)


def _broken_run(workload: Workload, point: Point, job: str, log: Path) -> Ended:
    workload.reset()
    names = [point.call.name] if point.fault == "KILL" else [*CHANGING, point.call.name]
    pid = workload.start(job)
    with Tracer(pid, log, names, point.inject):
        workload.bench.zygote.release()
        return workload.bench.zygote.wait()


def _reached(workload: Workload, point: Point, log: Path, ended: Ended) -> bool:
    """Return whether the fault hit the store; libraries can open more or fewer files."""
    if point.fault == "KILL":
        return ended.signal == signal.SIGKILL
    text = log.read_text(errors="backslashreplace")
    hit = [line for line in text.splitlines() if line.endswith("(INJECTED)")]
    return any(below(line, workload.store) for line in hit)


def _reported(point: Point, ended: Ended) -> list[str]:
    """Check that an error ended the run with its exit code and a clear line, or had no effect."""
    # A check that cannot read a file reports it as a problem.
    checked = not point.call.changes and "problem(s)" in ended.stderr
    allowed = {0, _STORAGE_EXIT} | ({_DATA_EXIT} if checked else set())
    if "access" in point.call.name:  # Python returns only yes or no, which means "not permitted"
        allowed.add(_PERMISSION_EXIT)
    if ended.code not in allowed:
        return [f"ended with code {ended.code}, signal {ended.signal}: {ended.stderr[-600:]}"]
    if ended.code == 0 and point.call.changes and point.call.name in ("fsync", "fdatasync"):
        return ["exit 0 although an fsync failed"]
    if "Traceback" in ended.stderr:
        return [f"a traceback: {ended.stderr[-600:]}"]
    last = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    if ended.code and len(last) != 1:
        return [f"no clear error: {ended.stderr[-600:]}"]
    return []


def _failed_sync_is_final(log: Path, ended: Ended) -> list[str]:
    """Check that nothing relies on a file or folder after its fsync failed."""
    failed = ""
    found = []
    for line in log.read_text(errors="backslashreplace").splitlines():
        if "(INJECTED)" in line and line.startswith(("fsync(", "fdatasync(")):
            match = _FD_PATH.search(line)
            failed = match["path"] if match else ""
        elif failed and line.startswith(("fsync(", "fdatasync(")) and f"<{failed}>" in line:
            if not Path(failed).is_dir():
                found.append(f"fsync of {failed} failed and was tried again")
        elif failed and line.startswith("rename") and (match := _RENAME.search(line)):
            if match["source"] == failed:
                found.append(f"{failed} was renamed after its fsync failed")
            if match["target"].endswith("/CURRENT"):
                found.append(f"CURRENT was replaced after the fsync of {failed} failed")
    if failed and ended.code == 0:
        found.append(f"exit 0 after the fsync of {failed} failed")
    return found
