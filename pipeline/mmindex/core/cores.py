"""Processor cores: how many there are for this process, and how its libraries share them."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The cores that this process may run on, which cgroups and taskset may have narrowed."""
    return len(os.sched_getaffinity(0))


def calm_openmp() -> None:
    """Have OpenMP's threads sleep while they wait, unless the environment says otherwise.

    faiss and torch bring an OpenMP each; threads that spin while they wait starve the other
    (measured on two busy cores: a k-means of 2.6 s took 28 s). It must be said before the first of
    them is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
