"""The jobs of concurrent processes: building at the same time, or reading during publishes.

For :func:`crowd`, whose processes are forked from one that has imported only this module.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier, Event, Semaphore
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from mmindex.core.errors import MmindexError
from mmindex.core.modality import Modality
from mmindex.models.encoder import Float32
from mmindex.models.preprocess import Pixels
from mmindex.search.hits import Limit, Ranked, hits
from mmindex.search.searcher import Searcher
from mmindex.store.snapshot import open_snapshot
from support.fakestore import run_build
from support.model import questions
from support.models import FakeEncoder

CONTEXT = multiprocessing.get_context("forkserver")
K = 3
_PAUSE_S = 0.005  # seconds between two answer sets, so that the writer makes progress


@contextmanager
def crowd(jobs: Sequence[tuple[Callable[..., None], tuple[Any, ...]]]) -> Iterator[list[Any]]:
    """Start a process for each job; at the end of the block, they must have ended."""
    CONTEXT.set_forkserver_preload([__name__])
    # The server finds modules only through its environment; without threads, a fork is safe.
    path = os.pathsep.join(sys.path)
    with mock.patch.dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS="1"):
        forkserver.ensure_running()
    processes: list[BaseProcess] = []
    for target, args in jobs:
        process = CONTEXT.Process(target=target, args=args)
        process.start()
        processes.append(process)
    try:
        yield processes
        for process in processes:
            process.join(120)
            assert process.exitcode is not None, "it never ended"
    finally:
        for process in processes:
            process.kill()


@dataclass(slots=True)
class PatientEncoder(FakeEncoder):
    """Encodes only after all others have given up."""

    others: Any = None
    count: int = 0

    def encode_images(self, pixels: Pixels) -> Float32:
        for _ in range(self.count):
            assert self.others.acquire(timeout=100), "somebody neither failed nor finished"
        self.count = 0
        return FakeEncoder.encode_images(self, pixels)


def build_with_others(
    root: Path, photos: Path, number: int, gate: Barrier, losers: Semaphore, out: Path
) -> None:
    """Build when all are ready, and write the exit code to ``out``."""
    encoder = PatientEncoder(others=losers, count=number - 1)
    gate.wait(60)
    try:
        run_build(root, photos, encoder=encoder)
        code, text = 0, ""
    except MmindexError as error:
        code, text = error.exit_code, f"{error.message} {error.hint}"
    (out / f"{os.getpid()}").write_text(json.dumps([code, text]))
    losers.release()


def read_all_along(root: Path, out: Path, ready: Semaphore, failed: Event, stop: Event) -> None:
    """Open and query the published version repeatedly; print one line of JSON per answer set."""
    with (out / f"{os.getpid()}").open("w") as file:
        for number in itertools.count():
            answer = _answers(root)
            file.write(json.dumps(answer) + "\n")
            if "failed" in answer:
                failed.set()
            if number == 0:
                ready.release()
            if stop.is_set():
                return
            time.sleep(_PAUSE_S)


def _answers(root: Path) -> dict[str, Any]:
    try:
        published = open_snapshot(root)
        searcher = Searcher(published, "image", threads=1)
        scores, ids = searcher.search(questions(), K)
        found = [
            Ranked(searcher.keys(row), [float(s) for s in values])
            for row, values in zip(ids, scores, strict=True)
        ]
        named = hits(published, Modality.IMAGE, found, Limit(k=100))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return {"failed": f"{type(error).__name__}: {error}"}
    return {
        "version": published.manifest.version,
        "keys": [list(ranked.keys) for ranked in found],
        "scores": np.round(scores.astype(float), 5).tolist(),
        "ids": [[hit.id for hit in row] for row in named],
    }
