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
from itertools import islice
from types import TracebackType
from typing import Generic, Self, TypeVar

from pebble import ProcessFuture, ProcessPool

from mmindex.core.errors import InternalError
from mmindex.core.progress import get_logger
from mmindex.core.records import ItemError, Reason
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


def start_worker(memory_bytes: int) -> None:
    """Initialise a worker."""
    die_with_parent()
    reuse_freed_memory(64 << 20)
    limit_worker(memory_bytes)


class DecodePool(Generic[T, R]):
    """Processes images ahead of their use, in order, in bounded memory.

    Args:
        decode: called with a task in a worker; must be picklable.
        workers: processes; 0 decodes in this process, without protection.
        timeout_s: seconds allowed for one image.
        memory_bytes: address space of a worker.
    """

    def __init__(
        self,
        decode: Callable[[T], R],
        workers: int,
        timeout_s: float,
        memory_bytes: int,
    ) -> None:
        self._decode = decode
        self._workers = workers
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
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

    def close(self) -> None:
        """End the processes; further work starts new ones."""
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]  # pebble leaves it bare
            self._pool.join()
            self._pool = None

    def results(self, tasks: Iterable[T], ahead: int) -> Iterator[tuple[T, R | Failure]]:
        """Decode every task; at most ``ahead`` are in progress or waiting for the caller.

        Raises:
            InternalError: workers cannot be started.
        """
        if not self._workers:
            for task in tasks:
                yield task, self._outcome(partial(self._decode, task))
            return
        source = iter(tasks)
        pending: deque[tuple[T, ProcessFuture[R]]] = deque()
        while True:
            for task in islice(source, ahead - len(pending)):
                pending.append((task, self._submit(task)))
            if not pending:
                return
            task, future = pending.popleft()
            try:
                decoded = self._outcome(future.result)
            except BrokenProcessPool as error:
                again = [task, *(waiting for waiting, _ in pending)]
                self._restart(error)
                pending = deque((waiting, self._submit(waiting)) for waiting in again)
                continue
            self._breaks = 0
            yield task, decoded

    def _submit(self, task: T) -> ProcessFuture[R]:
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=self._workers,
                initializer=start_worker,
                initargs=(self._memory_bytes,),
                context=WORKERS,
            )
        return self._pool.schedule(self._decode, args=(task,), timeout=self._timeout_s)

    def _outcome(self, result: Callable[[], R]) -> R | Failure:
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
