"""Decode workers. An image that crashes, hangs or fills memory affects only its worker.

Workers are separate processes (pebble's pool: it survives the death of a worker and kills workers
that exceed the time limit). They import Pillow and numpy, never torch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

import numpy as np
from pebble import ProcessFuture, ProcessPool

from mmindex.core.errors import InternalError
from mmindex.core.progress import get_logger
from mmindex.core.records import ItemError, Reason
from mmindex.core.shared import SharedRows
from mmindex.core.system import die_with_parent, limit_worker, reuse_freed_memory
from mmindex.core.workers import WORKERS, worker_deaths
from mmindex.media.images import ImageLimits
from mmindex.media.uris import open_indexed
from mmindex.models.preprocess import Pixels, PreprocessSpec, to_pixels

# A worker's address space: 1 GiB for Python and libraries, and 32 bytes per pixel of the largest
# allowed image, which is twice what the most demanding common format needs (a progressive CMYK
# JPEG). 4.3 GB with the default limit of 100 megapixels. Above it, the decoder fails or dies, and
# the machine is not affected.
_WORKER_BASE_BYTES = 1 << 30
_WORKER_BYTES_PER_PIXEL = 32
# After this number of failures without a result in between, the pool will never work.
_MAX_BREAKS = 3


@dataclass(frozen=True, slots=True)
class DecodeTask:
    """An image to decode; ``key`` is the sha256 of its bytes when it was crawled."""

    key: str
    uri: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no vector."""

    reason: Reason
    detail: str


Decoded = Pixels | Failure
T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Decoder:
    """Decodes tasks in a worker. It is sent to the workers, so it has only plain values."""

    spec: PreprocessSpec
    limits: ImageLimits

    def __call__(self, task: DecodeTask) -> Decoded:
        """Read, check, decode, resize: uint8 (height, width, 3), or the reason for a failure."""
        try:
            return to_pixels(open_indexed(task.uri, task.key, self.limits), self.spec)
        except ItemError as error:
            return Failure(error.reason, error.detail)


def worker_bytes(max_pixels: int) -> int:
    """Return the limit on a decode worker's address space."""
    return _WORKER_BASE_BYTES + _WORKER_BYTES_PER_PIXEL * max_pixels


_shared: SharedRows | None = None  # in a worker: where its pixels go


def start_worker(memory_bytes: int, shared: SharedRows | None) -> None:
    """Initialise a worker."""
    die_with_parent()
    global _shared  # noqa: PLW0603 # a pool's initializer has no other way to leave something behind
    _shared = shared
    reuse_freed_memory(64 << 20)
    limit_worker(memory_bytes + (shared.size_bytes if shared else 0))


def _run(decode: Callable[[T], R], task: T, slot: int) -> R | None:
    """Process a task in a worker; None if the result is in the shared memory."""
    result = decode(task)
    if _shared is None or not isinstance(result, np.ndarray):
        return result
    _shared.view()[slot] = result
    return None


class DecodePool(Generic[T, R]):
    """Processes images ahead of their use, in order, in bounded memory.

    Args:
        decode: called with a task in a worker; must be picklable.
        workers: processes; 0 decodes in this process, without protection.
        timeout_s: seconds allowed for one image.
        memory_bytes: address space of a worker.
        shared: memory for results, which are arrays of its shape; otherwise they are pickled.
    """

    def __init__(
        self,
        decode: Callable[[T], R],
        workers: int,
        timeout_s: float,
        memory_bytes: int,
        shared: SharedRows | None = None,
    ) -> None:
        self._decode = decode
        self._workers = workers
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._shared = shared
        self._tickets = count()
        self._pool: ProcessPool | None = None
        self._breaks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def workers(self) -> int:
        """The number of processes, also before they are started."""
        return self._workers

    @property
    def rows(self) -> int:
        """The number of arrays in the shared memory."""
        return self._shared.rows if self._shared else 0

    def close(self) -> None:
        """End the processes; further work starts new ones."""
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]  # pebble leaves it bare
            self._pool.join()
            self._pool = None

    def results(self, tasks: Iterable[T], ahead: int) -> Iterator[tuple[T, R | Failure]]:
        """Decode every task; at most ``ahead`` are in progress or waiting for the caller.

        An array in shared memory is valid until ``rows - ahead`` further results were taken.

        Raises:
            InternalError: workers cannot be started.
        """
        if not self._workers:
            for task in tasks:
                yield task, self._outcome(partial(self._decode, task))
            return
        source = iter(tasks)
        pending: deque[tuple[T, int, ProcessFuture[R | None]]] = deque()
        while True:
            for task in islice(source, ahead - len(pending)):
                slot = next(self._tickets) % max(1, self.rows)
                pending.append((task, slot, self._submit(task, slot)))
            if not pending:
                return
            task, slot, future = pending.popleft()
            try:
                decoded = self._outcome(future.result)
            except BrokenProcessPool as error:
                again = [(task, slot), *((waiting, its) for waiting, its, _ in pending)]
                self._restart(error)
                pending = deque((one, its, self._submit(one, its)) for one, its in again)
                continue
            self._breaks = 0
            if decoded is None and self._shared is not None:
                decoded = cast("R", self._shared.view()[slot])
            yield task, cast("R | Failure", decoded)

    def _submit(self, task: T, slot: int) -> ProcessFuture[R | None]:
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=self._workers,
                initializer=start_worker,
                initargs=(self._memory_bytes, self._shared),
                context=WORKERS,
            )
        return self._pool.schedule(_run, args=(self._decode, task, slot), timeout=self._timeout_s)

    def _outcome(self, result: Callable[[], S]) -> S | Failure:
        try:
            with worker_deaths(self._timeout_s):
                return result()
        except ItemError as error:
            return Failure(error.reason, error.detail)

    def _restart(self, error: BrokenProcessPool) -> None:
        self._breaks += 1
        get_logger("encode").warning("decode workers failed: starting new ones", error=str(error))
        self.close()
        if self._breaks >= _MAX_BREAKS:
            raise InternalError(
                f"decode workers cannot be started: {error}", "try `workers=0`"
            ) from error
