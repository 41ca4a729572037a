"""Checks with a result that either holds or does not, for scripts that end with an exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        check: what is checked.
        holds: whether it does.
        found: the measured value.
        wanted: the limit, in words.
    """

    check: str
    holds: bool
    found: str
    wanted: str


def at_least(check: str, found: float, limit: float) -> Check:
    """Return the check that a value reaches a limit; NaN does not."""
    return Check(check, bool(found >= limit), f"{found:.5g}", f"at least {limit:g}")


def guarded(name: str, measure: Callable[[], Iterable[Check]]) -> list[Check]:
    """Return the checks of a part; an error is a check that does not hold.

    The other parts still run, and the table shows the error.
    """
    checks = []
    try:
        for check in measure():
            checks.append(check)  # noqa: PERF402 # those before an error count
    except Exception as error:  # noqa: BLE001 # whatever a device raises is a result
        first = (str(error).splitlines() or [""])[0]
        checks.append(Check(name, False, f"{type(error).__name__}: {first}"[:200], "no error"))
    return checks


def lowest_cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the lowest cosine between rows of unit length: float32 (n, dim) each."""
    return float(np.einsum("ij,ij->i", one, other).min())
