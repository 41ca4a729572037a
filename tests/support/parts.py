"""Parts of an encoding in separate processes, with a fake model that can be made to wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from support.fakestore import run_command
from support.models import FakeEncoder, Float32, Pixels

_TESTS = Path(__file__).parent.parent


class PatientEncoder(FakeEncoder):
    """An encoder that encodes a number of batches of images, then waits until a file exists."""

    batches = 0
    gate: Path | None = None

    def encode_images(self, pixels: Pixels) -> Float32:
        if len(self.image_batches) >= self.batches:
            while self.gate is not None and not self.gate.exists():
                time.sleep(0.01)
        return FakeEncoder.encode_images(self, pixels)


def start(argv: list[str], gate: Path | None = None, batches: int = 0) -> subprocess.Popen[str]:
    """Start ``mmindex ARGV...`` with the fake model.

    Args:
        argv: the command.
        gate: a file that it waits for; None: it does not wait.
        batches: how many batches of images it encodes before it waits.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "support.parts", str(gate or ""), str(batches), *argv],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_TESTS), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], code: int = 0) -> dict[str, object]:
    """Return the printed JSON after the process has ended with this exit code."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return dict(json.loads(out)) if out.strip() else {}


if __name__ == "__main__":
    PatientEncoder.gate = Path(sys.argv[1]) if sys.argv[1] else None
    PatientEncoder.batches = int(sys.argv[2])
    sys.exit(run_command(sys.argv[3:], PatientEncoder()))
