"""SIGTERM ends a command by an exception, so that files, workers and the lock are let go."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from mmindex.core.errors import Terminated

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_AGAIN_S = 0.01
_HAS_TIMER = hasattr(signal, "setitimer")  # not on Windows, where a lost signal stays lost


def catch_signals() -> None:
    """Raise :class:`Terminated` on SIGTERM, and see to it that it gets through."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    if _HAS_TIMER:
        sys.unraisablehook = _raise_later


def stop_catching() -> None:
    """Let SIGTERM end the process at once: there is nothing left to unwind."""
    if _HAS_TIMER:
        signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _on_sigterm(_signal: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; unwinding must not be cut
    raise Terminated


def _raise_later(unraisable: UnraisableHookArgs) -> None:
    """Raise a signal's exception again where Python had to drop it.

    A handler may run while Python calls a ``__del__`` or a weak reference's callback, out of which
    nothing can be raised: the run would go on as if nothing had been asked of it.
    """
    lost = unraisable.exc_type
    if not issubclass(lost, (Terminated, KeyboardInterrupt)):
        sys.__unraisablehook__(unraisable)
        return

    def again(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise lost

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
