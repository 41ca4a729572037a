"""Figures that tests count, summed over all workers and printed at the end of the run."""

from __future__ import annotations

import os
import secrets
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

_FIGURES = "tally"
_SEED = "MMINDEX_SEED"
_TOTALS: dict[str, Counter[str]] = {}
_SEEDED: Counter[str] = Counter()


@dataclass(slots=True)
class Tally:
    """The figures of one test; its report passes them to the main process."""

    properties: list[tuple[str, object]]
    _mine: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, name: str, **counts: int) -> None:
        """Add to figures such as ``add("crash points", tried=1, survived=1)``."""
        if name not in self._mine:
            self._mine[name] = {}
            self.properties.append((_FIGURES, (name, self._mine[name])))
        mine = self._mine[name]
        for key, count in counts.items():
            what = key.replace("_", " ")
            mine[what] = mine.get(what, 0) + int(count)

    def seed(self, what: str) -> int:
        """Return the seed of a random run, derived from MMINDEX_SEED and ``what``."""
        if (_SEED, 1) not in self.properties:
            self.properties.append((_SEED, 1))
        print(f"MMINDEX_SEED={os.environ[_SEED]}")  # noqa: T201 - pytest shows it where a test fails
        return zlib.crc32(f"{os.environ[_SEED]} {what}".encode())


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    return Tally(request.node.user_properties)


def pytest_configure() -> None:
    # The main process comes first: its workers inherit the seed.
    os.environ[_SEED] = os.environ.get(_SEED) or str(secrets.randbelow(1 << 31))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        collect(report.user_properties)


def collect(properties: Iterable[tuple[str, object]]) -> None:
    """Add the figures of one test."""
    for kind, value in properties:
        if kind == _FIGURES:
            assert isinstance(value, (tuple, list))
            name, counts = value
            _TOTALS.setdefault(name, Counter()).update(counts)
        elif kind == _SEED:
            _SEEDED[kind] += 1


def lines() -> list[str]:
    """Print the last lines: figures by name, then the seed."""
    figures = [
        f"{name} {', '.join(f'{what} {count:,}' for what, count in counts.items())}"
        for name, counts in sorted(_TOTALS.items())
    ]
    if _SEEDED:
        repeat = f"{_SEED}={os.environ[_SEED]}"
        figures.append(f"tests that drew lots {_SEEDED[_SEED]:,}, to repeat them: {repeat}")
    return figures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = lines()
    if found:
        terminalreporter.section("torture")
        for line in found:
            terminalreporter.write_line(line)
