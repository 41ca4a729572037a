"""A run killed at any system call leaves an intact store; a failed call is reported.

Promises 1, 5 and 16: every call that touches the store is found by tracing a run, then each is
broken in a run of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.injection import list_calls, points, sample, try_point
from support.strace import missing
from support.tally import Tally
from support.workloads import WORKLOADS, Workload

pytestmark = [
    pytest.mark.skipif(bool(why := missing()), reason=f"needs strace: {why}"),
    pytest.mark.timeout(1800),
]
CHUNKS = 3  # so that two workers get about the same
# How many points of each workload are tried, in full and bounded.
FAULTS = {"KILL": (None, 15), "EIO": (None, 8), "ENOSPC": (None, 6), "READ_EIO": (120, 4)}
NAMES = {
    "KILL": "crash points",
    "EIO": "failing calls (EIO)",
    "ENOSPC": "failing calls (ENOSPC)",
    "READ_EIO": "failing reads (EIO)",
}


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", WORKLOADS)
def test_the_store_survives_every_failed_system_call(
    name: str,
    fault: str,
    chunk: int,
    workload: Callable[[str], Workload],
    tally: Tally,
    full: bool,
) -> None:
    count = FAULTS[fault][0 if full else 1]
    seed = tally.seed(f"{name} {fault}") if count is not None else 0
    work = workload(name)
    bad = []
    for point in sample(points(list_calls(work), fault), count, seed)[chunk::CHUNKS]:
        found = try_point(work, point)
        tally.add(NAMES[fault], tried=1, survived=not found)
        bad += [f"{point}: {line}" for line in found]
    assert not bad, f"{len(bad)} violations:\n" + "\n".join(bad[:20])
