"""Worker processes: how they are started."""

from __future__ import annotations

from multiprocessing import popen_spawn_posix, spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from types import FunctionType, SimpleNamespace
from typing import Any


def _without_main(name: str) -> dict[str, Any]:
    """What a child is told of its parent, save which main module to import."""
    told = spawn.get_preparation_data(name)
    return {key: value for key, value in told.items() if not key.startswith("init_main")}


class _Popen(popen_spawn_posix.Popen):
    """Starts a process as its base does, which asks the module ``spawn`` what to tell it."""

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
