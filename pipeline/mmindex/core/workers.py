"""Start worker processes, and handle those that die."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import popen_spawn_posix, spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from types import FunctionType, SimpleNamespace
from typing import Any

from mmindex.core.records import ItemError, Reason


def _without_main(name: str) -> dict[str, Any]:
    """Return the preparation data of a child process, without the main module."""
    told = spawn.get_preparation_data(name)
    return {key: value for key, value in told.items() if not key.startswith("init_main")}


class _Popen(popen_spawn_posix.Popen):
    """Starts a process like its base class, which gets the preparation data from ``spawn``."""

    _launch = FunctionType(
        popen_spawn_posix.Popen._launch.__code__,  # type: ignore[attr-defined]  # not in typeshed
        {
            **vars(popen_spawn_posix),
            "spawn": SimpleNamespace(
                **{**vars(spawn), "get_preparation_data": _without_main},
            ),
        },
    )


class _WorkerProcess(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> _Popen:  # noqa: N802 # the base's name
        return _Popen(process_obj)


class _WorkerContext(SpawnContext):
    Process = _WorkerProcess


WORKERS = _WorkerContext()
"""The multiprocessing context of every worker: a new interpreter for each, never a fork.

A fork would inherit the store's lock, the model's memory, and locks that other threads hold. Plain
``spawn`` imports the program's main module into every worker, so that a script without
``if __name__ == "__main__"`` starts itself over, and one from stdin cannot start workers at all.
Workers run mmindex's own functions only, so here the main module stays out of them (joblib's loky
does likewise); they start faster for it.
"""


@contextmanager
def worker_deaths(timeout_s: float) -> Iterator[None]:
    """Turn the death of a pebble worker into the failure of the item that it worked on.

    Raises:
        ItemError: the worker ran out of memory, took longer than ``timeout_s``, or died.
    """
    from pebble import ProcessExpired  # for commands that load a model without such workers

    try:
        yield
    except MemoryError as error:
        raise ItemError(Reason.DECODER_DIED, "out of memory") from error
    except TimeoutError as error:
        raise ItemError(Reason.DECODER_DIED, f"took longer than {timeout_s:g} s") from error
    except ProcessExpired as error:
        code = error.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise ItemError(Reason.DECODER_DIED, f"the decoder died ({how})") from error
