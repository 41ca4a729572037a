"""Convert SIGTERM to an exception, so that files, workers and the lock are released."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from mmindex.core.errors import Terminated

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_AGAIN_S = 0.01
_HAS_TIMER = hasattr(signal, "setitimer")  # Windows cannot raise a lost signal again


def catch_signals() -> None:
    """Raise :class:`Terminated` on SIGTERM, also where Python drops exceptions."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    if _HAS_TIMER:
        sys.unraisablehook = _raise_later


def stop_catching() -> None:
    """Let SIGTERM end the process immediately, because there is nothing left to release."""
    if _HAS_TIMER:
        signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _on_sigterm(_signal: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # further signals must not interrupt the cleanup
    raise Terminated


def _raise_later(unraisable: UnraisableHookArgs) -> None:
    """Raise the exception of a signal again after Python dropped it.

    A handler can run while Python calls a ``__del__`` or the callback of a weak reference. Python
    drops exceptions from these, so the run would continue despite the signal.
    """
    lost = unraisable.exc_type
    if not issubclass(lost, (Terminated, KeyboardInterrupt)):
        sys.__unraisablehook__(unraisable)
        return

    def again(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise lost

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
