"""The connection to a Ray cluster. Only this package imports Ray, inside functions."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmindex.core.errors import MissingPackageError, NetworkError, UsageError

CONNECT_S = 30.0
_PAUSE_S = 0.5
_CLIENT = "ray://"


@contextmanager
def connected(address: str, timeout_s: float = CONNECT_S) -> Iterator[None]:
    """Connect as a driver of the cluster for the block; an existing connection is used.

    Args:
        address: ``auto`` (the cluster that this machine belongs to, or ``RAY_ADDRESS``) or
            ``HOST:PORT`` of its head.
        timeout_s: how long to wait for the cluster.

    Raises:
        MissingPackageError: ray is not installed.
        UsageError: this kind of address is not supported.
        NetworkError: there is no cluster.
    """
    _require_ray()
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    if address.startswith(_CLIENT):
        raise UsageError(
            f"{address}: Ray Client addresses are not supported",
            "run the command on a node of the cluster with `cluster=auto`",
        )
    # Otherwise a loopback address is replaced by that of an interface where nothing listens.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    with _quiet_stdout() as quiet:
        _connect(address, time.monotonic() + timeout_s, timeout_s)
        _take_back_sigterm()
        try:
            yield
        finally:
            quiet.everything = True  # on shutdown, Ray prints its delayed messages
            ray.shutdown()


def _require_ray() -> None:
    try:
        found = importlib.util.find_spec("ray") is not None
    except ValueError:  # sys.modules has None for it
        found = False
    if not found:
        raise MissingPackageError(
            "a cluster needs the package ray, which is not installed",
            "pip install 'mmindex[ray]', on every node",
        )


def _connect(address: str, deadline: float, timeout_s: float) -> None:
    """Retry until the deadline; a cluster may be starting up."""
    why = ""
    while True:
        why = _attempt(address, deadline) or ""
        if not why:
            return
        if time.monotonic() + _PAUSE_S >= deadline:
            raise NetworkError(
                f"no Ray cluster at {address} within {timeout_s:g} s: {why}",
                "start one with `ray start`, and name its head with `cluster=HOST:6379`",
            )
        time.sleep(_PAUSE_S)


def _attempt(address: str, deadline: float) -> str | None:
    """Connect once; return why it failed."""
    # Ray ends the whole process if nothing listens, so this is checked first.
    if address != "auto" and (why := _unreachable(address, deadline)):
        return why
    failures: list[BaseException] = []
    # In a thread: it can hang, and there it does not replace this program's SIGTERM handler.
    thread = threading.Thread(target=_init, args=(address, failures), daemon=True)
    thread.start()
    thread.join(max(_PAUSE_S, deadline - time.monotonic()))
    if thread.is_alive():
        return "it does not respond"
    if not failures:
        return None
    if isinstance(failures[0], ConnectionError):
        return " ".join(str(failures[0]).split())[:300]
    raise NetworkError(
        f"the Ray cluster at {address} cannot be used: {' '.join(str(failures[0]).split())[:300]}",
        "every node needs the same versions of Ray and Python",
    ) from failures[0]


def _take_back_sigterm() -> None:
    """Restore this program's handler: Ray's C++ code installs one that writes a stack to stderr."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _unreachable(address: str, deadline: float) -> str:
    """Return why HOST:PORT cannot be reached; empty if it can.

    Raises:
        UsageError: it is not HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(
            f"cluster {address!r} is neither auto nor HOST:PORT", "for example `cluster=auto`"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _left(deadline)):
            return ""
    except (OSError, OverflowError) as error:
        return str(error)


def _left(deadline: float) -> float:
    return max(_PAUSE_S, deadline - time.monotonic())


def _init(address: str, failures: list[BaseException]) -> None:
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)  # the rest is repeated in exceptions
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except BaseException as error:  # noqa: BLE001 # it is judged in the thread that waits for it
        failures.append(error)


class _QuietStdout:
    """Standard output without the messages of Ray's threads about workers and nodes.

    Programs read results from standard output; deaths are logged as events.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.everything = False

    def write(self, text: str) -> int:
        if self.everything or threading.current_thread().name.startswith("ray_"):
            return len(text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _quiet_stdout() -> Iterator[_QuietStdout]:
    quiet = _QuietStdout(sys.stdout)
    with contextlib.redirect_stdout(quiet):
        yield quiet
