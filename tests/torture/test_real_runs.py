"""The real command with its model and decode workers, killed and terminated (1, 6, 9, 17)."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from support.command import MMINDEX, mmindex
from support.fakestore import write_photos
from support.oracle import Expected, State, copy_store, observe, violations
from support.tally import Tally
from support.workloads import Bench

pytestmark = pytest.mark.timeout(1200)
SIGTERM_EXIT = 143
SECONDS_TO_STOP = 30.0
IMAGES = 60
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MMINDEX_STORE": ""}


@dataclass(frozen=True, slots=True)
class Job:
    """A first build with two decode workers, its result, and how long it takes."""

    argv: tuple[str, ...]
    store: Path
    expected: Expected
    seconds: float

    def again(self) -> int:
        command = [str(MMINDEX), *self.argv]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True).returncode

    def start(self) -> subprocess.Popen[bytes]:
        copy_store(None, self.store)
        return subprocess.Popen(
            [MMINDEX, *self.argv],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture(scope="module")
def job(bench: Bench) -> Job:
    folder = bench.folder / "real"
    photos = write_photos(folder / "photos", {f"{n:03}.jpg": n for n in range(IMAGES)})
    config = folder / "config.toml"
    config.write_text(
        f'[[source]]\nspec = "folder:{photos}"\n[model]\nname = "embedded"\n'
        "[encode]\nworkers = 2\nbatch_size = 10\nshard_rows = 10\n"
        "[index]\nthreads = 1\ngpu = 'never'\n"
    )
    store = folder / "store"
    argv = ("build", "--store", str(store), "--config", str(config))
    start = time.monotonic()
    mmindex(*argv, env=ENVIRONMENT)
    seconds = time.monotonic() - start
    return Job(argv, store, Expected(State(), observe(store)), seconds)


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return every living process that the command started."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def holds(process: psutil.Process, path: Path) -> bool:
    """Return whether the process has the file open."""
    with suppress(OSError):
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                if link.readlink() == path:
                    return True
    return False


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that still run after half a minute, except zombies."""
    _, there = psutil.wait_procs(processes, timeout=1)
    end = time.monotonic() + SECONDS_TO_STOP
    while there and time.monotonic() < end:
        there = [one for one in there if one.is_running() and not is_zombie(one)]
        time.sleep(0.05)
    return there


def is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def lock_is_free(store: Path) -> bool:
    """Return whether the next run could start now."""
    path = store / "LOCK"
    if not path.exists():
        return True
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_after_a_kill_its_workers_hold_no_lock_and_the_next_run_starts(
    job: Job, tally: Tally, full: bool
) -> None:
    dice = random.Random(tally.seed("real kills"))
    seen = 0
    for number in range(10 if full else 2):
        process = job.start()
        if number % 2:  # while the workers certainly run
            while not family(process) and process.poll() is None:
                time.sleep(0.01)
            # The first one at once: later, its workers may have ended, and at least one is needed.
            time.sleep(dice.uniform(0, job.seconds / 4) if number > 1 else 0)
        else:
            time.sleep(dice.uniform(0, job.seconds))
        workers = family(process)
        seen += len(workers)
        assert not [worker for worker in workers if holds(worker, job.store / "LOCK")]
        process.kill()
        process.wait()
        assert lock_is_free(job.store), "a killed run's lock is still held"
        assert not living(workers)
        found = violations(job.store, job.expected, None, job.again)
        tally.add("kills of the real command", tried=1, survived=not found, workers=len(workers))
        assert not found
    assert seen, "no run was killed while it had workers"


def test_sigterm_ends_the_real_command_and_its_workers(job: Job, tally: Tally, full: bool) -> None:
    dice = random.Random(tally.seed("real terminations"))
    for _ in range(6 if full else 1):
        process = job.start()
        while not family(process) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(dice.uniform(0, job.seconds / 4))
        workers = family(process)
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=SECONDS_TO_STOP)
        assert not living(workers), "workers outlive the run"
        assert code in (0, SIGTERM_EXIT)
        found = violations(job.store, job.expected, code, job.again)
        tally.add("terminations of the real command", tried=1, survived=not found)
        assert not found
