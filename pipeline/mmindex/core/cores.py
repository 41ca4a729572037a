"""How many processor cores there are for this process."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The cores that this process may run on, which cgroups and taskset may have narrowed."""
    return len(os.sched_getaffinity(0))
