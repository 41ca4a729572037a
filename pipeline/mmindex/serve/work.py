"""Work off the event loop: bounded, so that a flood is turned away instead of piling up.

Texts that are asked at the same time are encoded and searched in one batch: the model and the
tables are gone through once for all of them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from mmindex.core.errors import BusyError, MmindexError
from mmindex.core.modality import Modality
from mmindex.search.hits import Limit
from mmindex.search.query import BATCH, Answer
from mmindex.serve.live import Served

T = TypeVar("T")

_THREADS: Final = 4


class Desk:
    """Runs calls in threads; of more than ``waiting`` at once it refuses the last.

    Args:
        waiting: calls that may be under way or wait.
    """

    def __init__(self, waiting: int) -> None:
        self._most = waiting
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="serve")
        self.waiting = 0

    async def run(self, work: Callable[[], T]) -> T:
        """The result of a call.

        Raises:
            BusyError: too many wait already.
        """
        self.enter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self.waiting -= 1

    def enter(self) -> None:
        """Count one more that waits; whoever calls this counts it off again.

        Raises:
            BusyError: too many wait already.
        """
        if self.waiting >= self._most:
            raise BusyError(f"{self.waiting} searches are waiting already", "try again in a second")
        self.waiting += 1

    def close(self) -> None:
        """Let what is under way end; nothing new begins."""
        self._threads.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A plain text query: those that agree in everything but the text share a batch."""

    served: Served
    text: str
    where: str | None
    to: Modality
    limit: Limit

    @property
    def kind(self) -> tuple[int, str | None, Modality, Limit]:
        """What queries of one batch have in common."""
        return id(self.served), self.where, self.to, self.limit


class TextBatcher:
    """Answers plain text queries, those that wait together.

    Args:
        desk: counts who waits.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._waiting: list[tuple[TextQuery, asyncio.Future[Answer]]] = []
        self._model = ThreadPoolExecutor(1, thread_name_prefix="serve-model")
        self._running = False
        self._task: asyncio.Task[None] | None = None
        self.batches = 0

    async def ask(self, query: TextQuery) -> Answer:
        """The answer to a query.

        Raises:
            BusyError: too many wait already.
            MmindexError: the query cannot be answered.
        """
        self._desk.enter()
        try:
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self._waiting.append((query, future))
            if not self._running:
                self._running = True
                self._task = asyncio.create_task(self._drain())
            return await future
        finally:
            self._desk.waiting -= 1

    async def run(self, work: Callable[[], T]) -> T:
        """A call that needs the model, in the one thread that uses it.

        Raises:
            BusyError: too many wait already.
        """
        self._desk.enter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._model, work)
        finally:
            self._desk.waiting -= 1

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                asked = [(query, future) for query, future in batch if not future.done()]
                self.batches += 1
                work = loop.run_in_executor(self._model, _answers, [query for query, _ in asked])
                await asyncio.wait([work])
                for place, (_, future) in enumerate(asked):
                    if not future.done():  # otherwise its client has gone
                        _settle(future, work, place)
        finally:
            self._running = False

    def close(self) -> None:
        """Let what is under way end."""
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
    """The answers to queries of any kinds, in their order."""
    groups: dict[tuple[int, str | None, Modality, Limit], list[int]] = defaultdict(list)
    for place, query in enumerate(queries):
        groups[query.kind].append(place)
    out: dict[int, Answer | MmindexError] = {}
    for places in groups.values():
        first = queries[places[0]]
        try:
            session = first.served.under(first.where)
            texts = [queries[place].text for place in places]
            found: list[Answer] = session.texts(texts, first.to, first.limit)
            out |= dict(zip(places, found, strict=True))
        except MmindexError as error:
            out |= dict.fromkeys(places, error)
    return [out[place] for place in range(len(queries))]
