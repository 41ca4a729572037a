"""Fixtures of the torture tests: how many of them run, where, and in which processes.

``MMINDEX_TORTURE=full`` (``make torture``) tries every point; by default a seeded sample of them
is tried. ``MMINDEX_SEED`` repeats a random run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from support.fakestore import fast_folder
from support.workloads import Bench, Workload, make_workload
from support.zygote import Zygote


@pytest.fixture(scope="session")
def full() -> bool:
    """Return whether to try everything."""
    mode = os.environ.get("MMINDEX_TORTURE") or "bounded"
    assert mode in ("full", "bounded"), "MMINDEX_TORTURE is full or bounded"
    return mode == "full"


@pytest.fixture(scope="session")
def fast_dir() -> Iterator[Path]:
    """A folder in memory, if the system has one."""
    with fast_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def bench(fast_dir: Path) -> Iterator[Bench]:
    """The zygote of this worker, and a folder for its workloads."""
    with Zygote(fast_dir / "zygote") as zygote:
        yield Bench(zygote, fast_dir)


@pytest.fixture(scope="session")
def workload(bench: Bench) -> Callable[[str], Workload]:
    """Workloads by name, each prepared once."""
    return cache(lambda name: make_workload(bench, name))
