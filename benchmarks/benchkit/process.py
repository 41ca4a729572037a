"""Run a program and measure its wall time, CPU time and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PEERS = "MMINDEX_PEERS"
MMINDEX = (sys.executable, "-m", "mmindex_cli")


@dataclass(frozen=True, slots=True)
class Ran:
    """The resources that a process used.

    Attributes:
        wall_s: from start to end.
        cpu_s: user and system time, including its children.
        peak_mb: the largest resident set of the process or one of its children, in MiB.
        stdout: its output.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    stdout: str

    def json(self) -> dict[str, Any]:
        """The last line of its output, parsed as JSON."""
        found: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return found


def run(arguments: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Ran:
    """Run a program to its end.

    Raises:
        RuntimeError: it failed; the message contains the end of its output.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdout=out,
            stderr=err,
            env={**os.environ, **(env or {})},
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            said = err.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(map(str, arguments))[:300]} failed:\n{said}")
        text = out.read().decode(errors="replace")
    return Ran(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, text)


def again(script: str, *arguments: str | Path | float) -> Ran:
    """Run one part of a benchmark in its own process: ``script`` is its ``__file__``."""
    return run([sys.executable, script, *map(str, arguments)])


def peer(name: str) -> Path | None:
    """Return the Python of a peer's environment in ``$MMINDEX_PEERS``; report if it is missing."""
    folder = os.environ.get(_PEERS)
    python = Path(folder) / name / "bin" / "python" if folder else None
    if python is not None and python.is_file():
        return python
    print(f"  {name}: not installed, left out (benchmarks/peers.sh creates its environment)")
    return None
