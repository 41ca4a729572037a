"""The jobs of a zygote's children; imported once, before any of them is forked."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mmindex_cli.app  # noqa: F401
from mmindex.models.encoder import Float32
from mmindex.models.preprocess import Pixels
from mmindex.store.layout import Layout
from support.fakestore import run_command, write_photos
from support.mapped import AdaptedEncoder
from support.models import FakeEncoder
from support.naive import naive_writer
from support.oracle import Expected, State, observe, violations


@dataclass(slots=True)
class DyingEncoder(FakeEncoder):
    """An encoder that kills its own process after a number of batches."""

    batches_left: int = 0

    def encode_images(self, pixels: Pixels) -> Float32:
        if not self.batches_left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.batches_left -= 1
        # super() does not work in a slotted dataclass
        return FakeEncoder.encode_images(self, pixels)


def command(argv: Sequence[str], seed: int = 0, dim: int = 16, adapted: int = 0) -> int:
    """Run ``mmindex ARGV...`` with the fake model of this seed; return its exit code.

    With ``adapted``, the model is the one of :mod:`support.mapped`, whose parent has seed 0.
    """
    return run_command(argv, AdaptedEncoder() if adapted else FakeEncoder(seed, dim))


def dying_command(argv: Sequence[str], batches: int) -> int:
    """Run ``mmindex ARGV...``, and kill it after this number of batches of images."""
    return run_command(argv, DyingEncoder(batches_left=batches))


def naive_command(argv: Sequence[str], seed: int = 0, dim: int = 16) -> int:
    """Run ``mmindex ARGV...`` with a faulty writer; see :mod:`support.naive`."""
    with naive_writer():
        return command(argv, seed, dim)


def warm_up(folder: Path) -> None:
    """Use everything once that a job can use."""
    photos = write_photos(folder / "photos", {f"{number}.jpg": number for number in range(3)})
    argv = ["--store", str(folder / "store"), "--log-format", "json"]
    assert command(["build", *argv, "--source", f"folder:{photos}", "--workers", "0"]) == 0
    assert command(["check", "--full", *argv]) == 0


def look(root: str) -> dict[str, object]:
    """Return the state of a store; see :func:`support.oracle.observe`."""
    import msgspec

    state: dict[str, object] = msgspec.to_builtins(observe(Path(root)))
    return state


def judge(
    root: str,
    before: dict[str, object],
    after: dict[str, object],
    exit_code: int | None,
    rerun: Sequence[str],
    seed: int = 0,
    dim: int = 16,
    adapted: int = 0,
    *,
    exact: bool = True,
) -> list[str]:
    """Return the oracle's result; ``rerun`` is the command to run again."""
    import msgspec

    expected = Expected(msgspec.convert(before, State), msgspec.convert(after, State), exact)
    again = partial(command, rerun, seed, dim, adapted)
    return violations(Path(root), expected, exit_code, again)


def damage_current(root: str) -> None:
    """Leave CURRENT as an incomplete write would."""
    path = Layout(Path(root)).current_file
    path.write_bytes(path.read_bytes()[:10])
