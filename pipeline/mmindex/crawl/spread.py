"""Read units of a source on the nodes of a cluster.

The driver lists the source, and stores what the nodes read in the order of the source. If a node
cannot read an image, the driver tries too: an image that only the node cannot read ends the run,
because the corpus is then not at the same place there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

from mmindex.cluster.join import Joined
from mmindex.cluster.tasks import Done, Need, Tasks
from mmindex.core.errors import NoInputError
from mmindex.crawl.ahead import Pending
from mmindex.crawl.reading import Reading, ReadRules, ToRead, read_unit

# A second or less of work; a Parquet row group is decoded once for each unit that it is in.
_ITEMS: Final = 256
# The driver stores about 4,000 images per second; more would only wait in its memory.
_MOST_AHEAD: Final = 64


@dataclass(frozen=True, slots=True)
class ReadUnit:
    """Items to read on a node, and the position of the unit in its source."""

    number: int
    items: tuple[ToRead, ...]


@dataclass(slots=True)
class _Pending:
    """A unit that a node reads."""

    reader: ClusterReader
    readings: tuple[Reading, ...] | None = None

    def result(self) -> tuple[Reading, ...]:
        while self.readings is None:
            self.reader.wait()
        return self.readings


class ClusterReader:
    """Reads units in tasks on the nodes of a cluster, in place of threads of this process.

    Args:
        joined: the cluster.
        rules: the rules of the crawl.
        threads: the number of items that a task reads at the same time.
    """

    items = _ITEMS
    small_bytes: int | None = None

    def __init__(self, joined: Joined, rules: ReadRules, threads: int) -> None:
        self._rules = rules
        work = partial(_read_here, rules, threads)
        self._tasks: Tasks[ReadUnit, tuple[Reading, ...]] = joined.tasks(work, Need(), _label)
        self._open: dict[int, _Pending] = {}
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tasks.close()

    @property
    def ahead(self) -> int:
        """The number of units to read ahead."""
        return min(self._tasks.room, _MOST_AHEAD)

    def submit(self, unit: Sequence[ToRead]) -> Pending:
        """Begin to read a unit."""
        pending = self._open[self._number] = _Pending(self)
        self._tasks.submit(ReadUnit(self._number, tuple(unit)))
        self._number += 1
        return pending

    def wait(self) -> None:
        """Wait until a unit has been read, or for a moment.

        Raises:
            MmindexError: a node failed; the message names it.
        """
        for done in self._tasks.wait():
            self._open.pop(done.argument.number).readings = self._compared(done)

    def _compared(self, done: Done[ReadUnit, tuple[Reading, ...]]) -> tuple[Reading, ...]:
        """Return the readings of a node; those that failed there must fail here as well."""
        for one, reading in zip(done.argument.items, done.result, strict=True):
            lost = one.sidecar is not None and reading.sidecar is None
            if (reading.failure and not reading.key) or lost:
                [here] = read_unit(self._rules, [one])
                if here != reading:
                    why = reading.failure[1] if reading.failure else "its sidecar cannot be read"
                    raise NoInputError(
                        f"node {done.node}: {one.uri}: {why}",
                        "mount the corpus at the same place on every node",
                    )
        return done.result


def _read_here(rules: ReadRules, threads: int, unit: ReadUnit) -> tuple[Reading, ...]:
    return read_unit(rules, unit.items, threads)


def _label(unit: ReadUnit) -> str:
    return f"unit {unit.number} of the crawl ({len(unit.items)} items from {unit.items[0].uri})"
