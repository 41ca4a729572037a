"""A clock that tests can set, for everything that uses the age of a store."""

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
    """Returns ``at`` as the time; replaces the class ``datetime`` in modules."""

    at: datetime

    def now(self, zone: tzinfo) -> datetime:
        return self.at.astimezone(zone)

    def fromisoformat(self, text: str) -> datetime:
        return datetime.fromisoformat(text)

    def move(self, days: float) -> None:
        """Move it forward or back."""
        self.at += timedelta(days=days)


@contextmanager
def set_clock() -> Iterator[Clock]:
    """The clock that dates versions and determines their age."""
    clock = Clock(datetime.now(UTC))
    with ExitStack() as stack:
        for module in _ASKING:
            stack.enter_context(mock.patch.object(module, "datetime", clock))
        yield clock
