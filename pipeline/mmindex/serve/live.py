"""The served version, and the switch to the next one.

A request uses the version that is current when it begins until it ends, so no response mixes two
versions. A version is released after its last request.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from mmindex.core.errors import DataError, MmindexError
from mmindex.core.memo import Memo, T
from mmindex.core.progress import get_logger
from mmindex.search.opened import Opened
from mmindex.search.query import Session, open_session
from mmindex.search.sessions import Sessions
from mmindex.serve.finder import Finder
from mmindex.serve.settings import WHERE_TIMEOUT_S
from mmindex.store import versions
from mmindex.store.snapshot import TABLES

if TYPE_CHECKING:
    from mmindex.core.modality import Modality
    from mmindex.models.encoder import Encoder
    from mmindex.store.manifest import Current, Manifest
    from mmindex.store.snapshot import Snapshot

_CONDITIONS: Final = 32  # cached conditions, with 9 bytes per row ...
_CONDITION_BYTES: Final = 256 << 20  # ... up to this total size
_POLL_S: Final = 1.0
_AGAIN_S: Final = 30.0  # time until a version that could not be opened is tried again


@dataclass(slots=True)
class Served:
    """One version, open for requests, with the results computed for it.

    Attributes:
        session: answers queries.
        pointer: the content of CURRENT for this version.
        finder: finds images by id.
        begun: long computations that have started, by name, see `Desk.slow`; used only by the event
            loop.
    """

    session: Session
    pointer: Current
    begun: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    finder: Finder = field(init=False)
    _sessions: Sessions = field(init=False)
    _made: Memo[Any] = field(default_factory=lambda: Memo(16))

    def __post_init__(self) -> None:
        self.finder = Finder(self.snapshot)
        fit = _CONDITION_BYTES // (9 * max(1, self.manifest.counts.indexed))
        keep = max(1, min(_CONDITIONS, fit))
        self._sessions = Sessions(self.session, keep, WHERE_TIMEOUT_S)

    @property
    def snapshot(self) -> Snapshot:
        """The version's tables, vectors and indexes."""
        return self.session.snapshot

    @property
    def manifest(self) -> Manifest:
        """The manifest of the version."""
        return self.snapshot.manifest

    @property
    def number(self) -> int:
        """The version's number."""
        return self.manifest.version

    def under(self, where: str, to: Modality) -> Session:
        """Return the session with a condition, ready to search ``to``.

        Raises:
            UsageError: the condition is invalid, or takes too long.
            NoInputError: this side has nothing to search.
        """
        session = self._sessions.under(where)
        session.prepare(to)
        return session

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return the result of ``make``, which is called once for this version."""
        return cast("T", self._made.get(name, make))

    def prepare(self) -> None:
        """Load the model and the indexes, so that the first request does not wait for them.

        Raises:
            MmindexError: they are not available, or damaged.
        """
        _ = self.session.vectorizer.encoder
        for side in self.manifest.indexes:
            self.session.prepare(side)
            self.snapshot.open_parquet(TABLES[side]).close()  # hashed on first use


class Live:
    """Follows the published version of the store.

    Args:
        root: the folder of the store.
        device: the device for the model.

    Raises:
        NoInputError: there is no store, or no searchable version.
        MmindexError: the store is damaged, or the model is not available.
    """

    def __init__(self, root: Path, device: str) -> None:
        self._root = root
        self._device = device
        self._layout = versions.open_layout(root)
        self._encoder: Encoder | None = None
        self._model = threading.Lock()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self._behind: str | None = None
        self._damage: str | None = None
        self._failed: tuple[Current, float] | None = None
        self.on_change: Callable[[Served], None] = lambda _: None
        self._current = self._open()
        self._current.prepare()

    @property
    def current(self) -> Served:
        """The version for new requests."""
        return self._current

    @property
    def problem(self) -> str | None:
        """Why the newest version is not served, or what is damaged; None if there is no problem."""
        return self._damage or self._behind

    def damaged(self, error: DataError) -> None:
        """Record that a part of the served version is damaged."""
        self._damage = error.message

    def watch(self) -> None:
        """Watch for new versions in a thread until :meth:`close`."""
        self._watcher = threading.Thread(target=self._follow, name="serve-watch", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop watching, and release the model."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()
        with self._model:
            if self._encoder is not None:
                self._encoder.close()
                self._encoder = None

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_S):
            self.poll()

    def poll(self) -> None:
        """Switch to a new published version as soon as it is ready.

        Until then, and if it cannot be opened, the previous version is served.
        """
        log = get_logger("serve")
        pointer = None
        try:
            pointer = versions.read_current_pointer(self._layout)
            if pointer is None or pointer == self._current.pointer:
                self._behind = None
                return
            if self._just_failed(pointer):
                return
            served = self._open()
            served.prepare()
        except MmindexError as error:
            if self._behind != error.message:
                log.error("the new version cannot be served", why=error.message)
            self._behind = error.message
            self._failed = None if pointer is None else (pointer, time.monotonic())
            return
        self._current, self._behind, self._damage = served, None, None
        log.info("serving a new version", version=served.number)
        self.on_change(served)

    def _just_failed(self, pointer: Current) -> bool:
        if self._failed is None:
            return False
        failed, moment = self._failed
        return failed == pointer and time.monotonic() - moment < _AGAIN_S

    def _open(self) -> Served:
        while True:
            session = open_session(self._root, self._device)
            hold = session.snapshot.hold
            pointer = versions.read_current_pointer(self._layout)
            if pointer and hold and pointer.version == hold.manifest.version:
                return Served(self._sharing(session), pointer)
            # published in the meantime

    def _sharing(self, session: Session) -> Session:
        """Return a session that reuses the loaded model if it is the right one."""

        def shared() -> Encoder:
            with self._model:
                known = self._encoder
                if known is None or known.info.fingerprint != session.snapshot.encoder.fingerprint:
                    known = self._encoder = session.vectorizer.load()
                return known

        return Session(Opened(session.snapshot, shared))
