"""The tests detect a faulty writer (guarantee 19)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.injection import list_calls, points, sample, try_point
from support.strace import missing
from support.tally import Tally
from support.workloads import Workload

pytestmark = [
    pytest.mark.skipif(bool(why := missing()), reason=f"needs strace: {why}"),
    pytest.mark.timeout(900),
]


@pytest.mark.parametrize("fault", ["KILL", "EIO", "ENOSPC"])
def test_a_writer_in_place_is_detected(
    fault: str, workload: Callable[[str], Workload], tally: Tally, full: bool
) -> None:
    work = workload("build with changes")
    # Among the many calls on objects, most of which nothing uses yet, a sample can miss these.
    commit = [
        call
        for call in list_calls(work, "naive_command")
        if "/CURRENT" in call.text or "/versions/" in call.text
    ]
    found = points(commit, fault)
    assert found
    tried = sample(found, None if full else 12, tally.seed(f"naive {fault}"))
    caught = sum(bool(try_point(work, point, "naive_command")) for point in tried)
    tally.add("careless writer", tried=len(tried), caught=caught)
    assert caught
