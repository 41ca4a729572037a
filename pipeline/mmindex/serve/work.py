"""Run work outside the event loop, with a limit, so that excess requests are refused.

Concurrent text queries are encoded and searched in one batch, with one pass through the model and
the tables.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from mmindex.core.errors import BusyError, MmindexError
from mmindex.core.modality import Modality
from mmindex.search.answer import Answer
from mmindex.search.hits import Limit
from mmindex.search.query import BATCH, Session
from mmindex.serve.live import Served

T = TypeVar("T")

_THREADS: Final = 4  # for short work: reading rows and rendering pages
_CONDITIONS: Final = 2  # concurrent conditions: DuckDB can use 512 MB for each
_PATIENCE_S: Final = 2.0  # how long a request waits for a long computation


class Desk:
    """Runs calls in threads; refuses a call if ``waiting`` calls are active or waiting.

    Args:
        waiting: the largest number of calls.
    """

    def __init__(self, waiting: int) -> None:
        self._most = waiting
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="serve")
        self._conditions = ThreadPoolExecutor(_CONDITIONS, thread_name_prefix="serve-where")
        self._slow = ThreadPoolExecutor(1, thread_name_prefix="serve-slow")
        self.waiting = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Run a short call.

        Raises:
            BusyError: too many calls are waiting.
        """
        with self.place():
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def under(self, served: Served, where: str | None, to: Modality) -> Session:
        """Return the session with a condition; raises as :meth:`run` and `Served.under`."""
        if where is None:
            return served.session
        with self.place():
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._conditions, served.under, where, to)

    async def slow(self, served: Served, name: str, make: Callable[[], T]) -> T | None:
        """Return the result of a long computation, which runs once per version; None: not ready.

        Raises:
            MmindexError: the computation fails.
        """
        begun = served.begun.get(name)
        if begun is None:
            begun = asyncio.get_running_loop().run_in_executor(self._slow, make)
            served.begun[name] = begun
        done, _ = await asyncio.wait([begun], timeout=_PATIENCE_S)
        if not done:
            return None
        if begun.cancelled() or begun.exception() is not None:
            served.begun.pop(name, None)  # so that the next request tries again
        return begun.result()  # type: ignore[no-any-return]  # what make gave

    @contextmanager
    def place(self) -> Iterator[None]:
        """Count one more waiting call during the block.

        Raises:
            BusyError: too many calls are waiting.
        """
        if self.waiting >= self._most:
            raise BusyError(f"{self.waiting} requests are already waiting", "try again in a second")
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    def close(self) -> None:
        """Wait for active calls; start no new ones."""
        for pool in (self._threads, self._conditions, self._slow):
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A plain text query; queries that differ only in the text share a batch."""

    session: Session
    text: str
    to: Modality
    limit: Limit

    @property
    def kind(self) -> tuple[int, Modality, Limit]:
        """The values that are equal in one batch."""
        return id(self.session), self.to, self.limit


class TextBatcher:
    """Answers waiting text queries in batches, and runs calls that need the model.

    Args:
        desk: counts waiting calls.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._waiting: list[tuple[TextQuery, asyncio.Future[Answer]]] = []
        self._model = ThreadPoolExecutor(1, thread_name_prefix="serve-model")
        self._running = False
        self._task: asyncio.Task[None] | None = None

    async def ask(self, query: TextQuery) -> Answer:
        """Answer a query.

        Raises:
            BusyError: too many calls are waiting.
            MmindexError: the query fails.
        """
        with self._desk.place():
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self._waiting.append((query, future))
            if not self._running:
                self._running = True
                self._task = asyncio.create_task(self._drain())
            return await future

    async def run(self, work: Callable[[], T]) -> T:
        """Run a call that needs the model in the model thread.

        Raises:
            BusyError: too many calls are waiting.
        """
        with self._desk.place():
            return await asyncio.get_running_loop().run_in_executor(self._model, work)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                asked = [(query, future) for query, future in batch if not future.done()]
                work = loop.run_in_executor(self._model, _answers, [query for query, _ in asked])
                await asyncio.wait([work])
                for place, (_, future) in enumerate(asked):
                    if not future.done():  # otherwise the client has disconnected
                        _settle(future, work, place)
        finally:
            self._running = False

    def close(self) -> None:
        """Wait for active calls."""
        self._model.shutdown(wait=True, cancel_futures=True)


def _settle(
    future: asyncio.Future[Answer],
    work: asyncio.Future[list[Answer | MmindexError]],
    place: int,
) -> None:
    failed = work.exception()
    answer = failed or work.result()[place]
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _answers(queries: list[TextQuery]) -> list[Answer | MmindexError]:
    """Answer queries of any kinds, in order."""
    groups: dict[tuple[int, Modality, Limit], list[int]] = defaultdict(list)
    for place, query in enumerate(queries):
        groups[query.kind].append(place)
    out: dict[int, Answer | MmindexError] = {}
    for places in groups.values():
        first = queries[places[0]]
        try:
            texts = [queries[place].text for place in places]
            found: list[Answer] = first.session.texts(texts, first.to, first.limit)
            out |= dict(zip(places, found, strict=True))
        except MmindexError as error:
            out |= dict.fromkeys(places, error)
    return [out[place] for place in range(len(queries))]
