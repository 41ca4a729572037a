"""A clock that tests set, for everything that asks a store's age."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from unittest import mock

from mmindex.runs import run
from mmindex.upkeep import forget, gc, rollback

_ASKING = (forget, gc, run, rollback)


@dataclass(slots=True)
class Clock:
    """Tells ``at``, whatever time it is; stands in for the class ``datetime`` in modules."""

    at: datetime

    def now(self, zone: tzinfo) -> datetime:
        return self.at.astimezone(zone)

    def fromisoformat(self, text: str) -> datetime:
        return datetime.fromisoformat(text)

    def move(self, days: float) -> None:
        """Set it forward, or back."""
        self.at += timedelta(days=days)


@contextmanager
def set_clock() -> Iterator[Clock]:
    """The clock by which versions are dated, and by which their age is told."""
    clock = Clock(datetime.now(UTC))
    with ExitStack() as stack:
        for module in _ASKING:
            stack.enter_context(mock.patch.object(module, "datetime", clock))
        yield clock
