"""The exception of a signal is raised even where Python would drop it."""

from __future__ import annotations

import signal
import sys
import time
import weakref
from collections.abc import Iterator

import pytest

from mmindex.core.errors import Terminated
from mmindex_cli.interrupts import catch_signals, stop_catching


@pytest.fixture(autouse=True)
def caught() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    hook = sys.unraisablehook
    catch_signals()
    yield
    stop_catching()
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


class Thing:
    """Something that a weak reference can point to."""


def drop(number: signal.Signals) -> None:
    """Receive a signal in the callback of a weak reference."""
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(number))
    del thing
    assert reference() is None


def wait() -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        pass


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_lost_in_a_callback_is_raised_again(
    number: signal.Signals, kind: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(kind):
        drop(number)
        wait()
    assert "Exception ignored" not in capsys.readouterr().err


def test_other_errors_in_callbacks_are_reported_as_usual(
    capsys: pytest.CaptureFixture[str],
) -> None:
    thing = Thing()
    reference = weakref.ref(thing, lambda _: 1 / 0)
    del thing
    assert reference() is None
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_second_sigterm_does_not_interrupt_the_cleanup() -> None:
    with pytest.raises(Terminated):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
