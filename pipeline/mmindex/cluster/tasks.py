"""Tasks on the nodes of a cluster: as many as the nodes can run, until all are done.

A task is a function at module level, its argument, and the resources that it needs. Its result has
the node's name. A task whose worker or node dies is restarted; three deaths end the run.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mmindex.core.errors import InternalError, MmindexError, NetworkError, StorageError, first_lines
from mmindex.core.progress import Event, get_logger

T = TypeVar("T")
R = TypeVar("R")

_MOST_DEATHS = 3
# Tasks submitted per running task: a node never waits for the driver.
_AHEAD = 2
_POLL_S = 1.0
# An autoscaler needs minutes to replace nodes; the run ends after this time without nodes.
_NO_NODES_S = 600.0
# A node with free resources starts a task within seconds, and imports take a few more.
_LOOK_S = 120.0


@dataclass(frozen=True, slots=True)
class Need:
    """The resources that one task needs."""

    cpus: int = 1
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster.

    Attributes:
        id: Ray's id.
        name: name in messages: the host's name and the first digits of the id.
        cpus, gpus: its resources.
    """

    id: str
    name: str
    cpus: int
    gpus: int

    def takes(self, need: Need) -> int:
        """Return how many tasks fit."""
        parts = [self.cpus // need.cpus] if need.cpus else []
        return min([*parts, *([self.gpus // need.gpus] if need.gpus else [])], default=0)


@dataclass(frozen=True, slots=True)
class Done(Generic[T, R]):
    """A completed task.

    Attributes:
        argument: its argument.
        result: its result.
        node: the name of the node that ran it.
        seconds: its duration there.
    """

    argument: T
    result: R
    node: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Answer:
    """The response of a task; an expected error is a value, so that its node is known."""

    node: str
    seconds: float
    warnings: tuple[Event, ...]
    result: Any = None
    error: MmindexError | None = None


def nodes() -> list[Node]:
    """Return the current nodes, by name."""
    import ray

    found = []
    for one in ray.nodes():  # type: ignore[no-untyped-call]
        if one["Alive"]:
            offers = one["Resources"]
            name = node_name(one["NodeManagerHostname"], one["NodeID"])
            cpus, gpus = int(offers.get("CPU", 0)), int(offers.get("GPU", 0))
            found.append(Node(one["NodeID"], name, cpus, gpus))
    return sorted(found, key=lambda node: node.name)


def node_name(host: str, node_id: str) -> str:
    """Return a node's name for messages."""
    return f"{host}/{node_id[:8]}"


def on_each(
    work: Callable[[T], R], argument: T, where: Sequence[Node], need: Need
) -> list[tuple[Node, R]]:
    """Run a task on each of these nodes; a node that leaves has no result.

    Raises:
        MmindexError: the task's error, with the node's name.
        NetworkError: a node does not start it in time.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(_run)
    refs = {}
    for node in where:
        pinned = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
        options = remote.options(
            num_cpus=0, num_gpus=need.gpus, max_retries=0, scheduling_strategy=pinned
        )
        refs[options.remote(work, argument)] = node
    ray.wait(list(refs), num_returns=len(refs), timeout=_LOOK_S)
    found = []
    for ref, node in refs.items():
        try:
            answer = ray.get(ref, timeout=0)
        except ray.exceptions.GetTimeoutError as error:
            raise NetworkError(
                f"node {node.name} did not start a task within {_LOOK_S:g} s",
                "check with `ray status` whether it is busy with other jobs",
            ) from error
        except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
            get_logger("cluster").warning("a node has left", node=node.name)
            continue
        except ray.exceptions.RayError as error:
            raise _unusable(node.name, error) from error
        found.append((node, _result(answer)))
    return found


@dataclass(slots=True)
class Tasks(Generic[T, R]):
    """Runs tasks on all available nodes.

    Attributes:
        work: the function, from a module that every node has; it takes one argument.
        need: the resources that a task needs.
        label: the name of an argument in messages.
        deaths: workers and nodes that died during a task so far.
    """

    work: Callable[[T], R]
    need: Need
    label: Callable[[T], str]
    deaths: int = 0
    _remote: Any = None
    _work: Any = None
    _running: dict[Any, tuple[T, int]] = field(default_factory=dict)
    _fits: int = 0
    _looked: float = -_POLL_S
    _lonely_since: float = field(default_factory=time.monotonic)

    def run(self, arguments: Iterable[T]) -> Iterator[Done[T, R]]:
        """Run every task; results are in order of completion.

        Raises:
            MmindexError: as :meth:`wait`.
        """
        source, waiting = iter(arguments), True
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self.room:
                    argument = next(source, None)
                    if argument is None:
                        waiting = False
                        break
                    self.submit(argument)
                yield from self.wait()
        finally:
            self.close()

    @property
    def room(self) -> int:
        """The number of tasks to submit: more than the nodes can run at the same time."""
        if time.monotonic() - self._looked >= _POLL_S:
            with _lost():
                self._fits = sum(node.takes(self.need) for node in nodes())
            self._looked = time.monotonic()
            if self._fits:
                self._lonely_since = self._looked
        return max(1, _AHEAD * self._fits)

    def submit(self, argument: T) -> None:
        """Start a task as soon as a node is free."""
        with _lost():
            self._start(argument, 0)

    def wait(self) -> list[Done[T, R]]:
        """Wait until a task is done, or for a moment; return the completed ones.

        Raises:
            MmindexError: a task's error, with the node's name.
            InternalError: a task killed its worker three times.
            NetworkError: the cluster is gone, or has had no node for too long.
        """
        import ray

        with _lost():
            if self.room and not self._fits and self._alone() > _NO_NODES_S:
                raise NetworkError(
                    f"the cluster has had no node for a unit for {_NO_NODES_S:g} s",
                    "run the command again when there are nodes: finished work is kept",
                )
            if not self._running:
                return []
            ready, others = ray.wait(list(self._running), timeout=_POLL_S)
            if ready and others:
                more, _ = ray.wait(others, num_returns=len(others), timeout=0)
                ready += more
            return [done for ref in ready for done in self._take(ref)]

    def close(self) -> None:
        """Forget unfinished tasks; disconnecting ends them."""
        # Cancelling a task that has just finished crashes Ray 2.60.
        self._running.clear()

    def _alone(self) -> float:
        return time.monotonic() - self._lonely_since

    def _start(self, argument: T, deaths: int) -> None:
        import ray

        if self._remote is None:
            self._work = ray.put(self.work)  # sent to each node once, not with each task
            self._remote = ray.remote(
                num_cpus=self.need.cpus,
                num_gpus=self.need.gpus,
                max_retries=0,
                max_calls=0,  # otherwise a GPU's worker, with its model, would run only one task
                scheduling_strategy="SPREAD",
            )(_run)
        self._running[self._remote.remote(self._work, argument)] = (argument, deaths)

    def _take(self, ref: Any) -> Iterator[Done[T, R]]:
        """Yield the result of a task; nothing if its worker died and it was restarted."""
        import ray

        argument, deaths = self._running.pop(ref)
        try:
            answer = ray.get(ref)
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
        ) as error:
            self._died(argument, deaths + 1, error)
            return
        except ray.exceptions.RayTaskError as error:
            raise _unusable("", error) from error
        yield Done(argument, _result(answer), answer.node, answer.seconds)

    def _died(self, argument: T, deaths: int, error: Exception) -> None:
        import ray

        self.deaths += 1
        what = "node" if isinstance(error, ray.exceptions.NodeDiedError) else "worker"
        if deaths >= _MOST_DEATHS:
            raise InternalError(
                f"{self.label(argument)}: {deaths} workers died while working on it, the last one: "
                f"{first_lines(error)}",
                "check whether a node lacks memory; finished work is kept; "
                "`mmindex encode` without a cluster names the item",
            ) from error
        get_logger("cluster").warning(
            f"a {what} died: its unit is restarted", unit=self.label(argument), deaths=deaths
        )
        self._start(argument, deaths)


@contextmanager
def _lost() -> Iterator[None]:
    """Turn Ray's errors in the block into that of a lost cluster."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        raise NetworkError(
            f"the cluster is lost: {first_lines(error)}",
            "run the command again: finished work is kept",
        ) from error


def _run(work: Callable[[Any], Any], argument: Any) -> _Answer:
    """Run a task on a node."""
    import ray

    name = node_name(socket.gethostname(), ray.get_runtime_context().get_node_id())
    result, failure, start = None, None, time.perf_counter()
    with _warnings() as warnings:
        try:
            result = work(argument)
        except MmindexError as error:
            failure = error
    return _Answer(name, time.perf_counter() - start, tuple(warnings), result, failure)


@contextmanager
def _warnings() -> Iterator[list[Event]]:
    """Collect mmindex's warnings in the block, because a worker's log is not shown."""
    events: list[Event] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if isinstance(record.msg, Event):
                events.append(record.msg)

    logger, keeper = logging.getLogger("mmindex"), Keeper(logging.WARNING)
    logger.addHandler(keeper)
    try:
        yield events
    finally:
        logger.removeHandler(keeper)


def _result(answer: _Answer) -> Any:
    """Return the result, or raise the task's error with its node's name; log its warnings here."""
    for event in answer.warnings:
        get_logger(event.stage).warning(event.message, **{**event.values, "node": answer.node})
    if answer.error is None:
        return answer.result
    error = answer.error
    raise type(error)(f"node {answer.node}: {error.message}", error.hint) from error


def _unusable(node: str, error: Exception) -> MmindexError:
    """Return the error for a task that ended with an unexpected error, or could not start."""
    where = f"node {node}" if node else "a node"
    cause = getattr(error, "cause", None)
    said = f"{type(cause).__name__}: {cause}" if cause is not None else str(error)
    text = " ".join(said.split())[-400:]
    if isinstance(cause, OSError):
        return StorageError(f"{where}: {text}")
    return InternalError(
        f"{where} cannot run mmindex: {text}", "install the same mmindex[ray] on every node"
    )
