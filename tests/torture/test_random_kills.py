"""A run killed or terminated at a random time leaves an intact store (1 and 17)."""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from support.tally import Tally
from support.workloads import Workload
from support.zygote import Ended

pytestmark = pytest.mark.timeout(900)
NAMES = ("first build", "build with changes", "model change", "forget", "gc")
SIGTERM_EXIT = 143
SECONDS_TO_STOP = 30.0


def undisturbed_s(work: Workload) -> float:
    """Return how long the run takes, in seconds."""
    times = []
    for _ in range(3):
        work.reset()
        work.start()
        start = time.monotonic()
        work.bench.zygote.release()
        assert work.bench.zygote.wait().code == 0
        times.append(time.monotonic() - start)
    return statistics.median(times)


def run_until(work: Workload, seconds: float, number: signal.Signals) -> Ended:
    """Run, send the signal after this number of seconds, and wait for the end; kill after 30 s."""
    work.reset()
    pid = work.start()
    work.bench.zygote.release()
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(pid, number)
    watchdog = threading.Timer(SECONDS_TO_STOP, lambda: os.kill(pid, signal.SIGKILL))
    watchdog.start()
    try:
        return work.bench.zygote.wait()
    finally:
        watchdog.cancel()


@pytest.mark.parametrize("name", NAMES)
def test_a_kill_at_any_time_leaves_an_intact_store(
    name: str, workload: Callable[[str], Workload], tally: Tally, full: bool
) -> None:
    work = workload(name)
    dice = random.Random(tally.seed(f"kills {name}"))
    span = 1.1 * undisturbed_s(work)
    bad = []
    for number in range(38 if full else 6):
        ended = run_until(work, dice.uniform(0, span), signal.SIGKILL)
        found = work.violations(ended.code)
        if ended.code not in (None, 0):
            found.append(f"{ended}")
        tally.add("random kills", tried=1, survived=not found)
        bad += [f"kill {number}: {line}" for line in found]
    assert not bad, "\n".join(bad[:20])


@pytest.mark.parametrize("name", NAMES)
def test_sigterm_at_any_time_ends_the_run_cleanly(
    name: str, workload: Callable[[str], Workload], tally: Tally, full: bool
) -> None:
    work = workload(name)
    dice = random.Random(tally.seed(f"terminations {name}"))
    span = 1.1 * undisturbed_s(work)
    bad = []
    for number in range(20 if full else 4):
        ended = run_until(work, dice.uniform(0, span), signal.SIGTERM)
        found = work.violations(ended.code)
        # Before the first line of the command, SIGTERM ends the process in the usual way, which
        # shells also report as 143.
        if ended.code not in (0, SIGTERM_EXIT) and ended.signal != signal.SIGTERM:
            found.append(f"ended with {ended}")
        if "Traceback" in ended.stderr:
            found.append(ended.stderr[-800:])
        tally.add("terminations", tried=1, survived=not found)
        bad += [f"termination {number}: {line}" for line in found]
    assert not bad, "\n".join(bad[:20])
