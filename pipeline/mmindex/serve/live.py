"""The version that is served, and the move to the next one.

A request takes the version that is current when it begins and keeps it until it ends, so no answer
mixes two. A version is let go when its last request has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mmindex.core.errors import MmindexError
from mmindex.core.progress import get_logger
from mmindex.search.query import Session, Sessions, open_session
from mmindex.store import versions

if TYPE_CHECKING:
    from mmindex.models.encoder import Encoder
    from mmindex.store.manifest import Current, Manifest
    from mmindex.store.snapshot import Snapshot

T = TypeVar("T")

_CONDITIONS: Final = 32  # conditions whose matching rows are kept, 9 bytes a row
_POLL_S: Final = 1.0


@dataclass(slots=True)
class Served:
    """One version, open for requests; what is worked out about it is kept with it."""

    session: Session
    pointer: Current
    _sessions: Sessions = field(init=False)
    _made: dict[str, Any] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._sessions = Sessions(self.session, _CONDITIONS)

    @property
    def snapshot(self) -> Snapshot:
        """The version's tables, vectors and indexes."""
        return self.session.snapshot

    @property
    def manifest(self) -> Manifest:
        """What the version records."""
        return self.snapshot.manifest

    @property
    def number(self) -> int:
        """The version's number."""
        return self.manifest.version

    def under(self, where: str | None) -> Session:
        """The session that answers under a condition.

        Raises:
            UsageError: it is no condition.
        """
        return self._sessions.under(where)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` gives, made once for this version."""
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]  # type: ignore[no-any-return]  # as it was made


class Live:
    """Follows the store's published version.

    Args:
        root: the store.
        device: where the model runs.

    Raises:
        NoInputError: there is no store, or no version that can be searched.
        MmindexError: the store is damaged.
    """

    def __init__(self, root: Path, device: str) -> None:
        self._root = root
        self._device = device
        self._layout = versions.open_layout(root)
        self._encoder: Encoder | None = None
        self._model = threading.Lock()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self.problem: str | None = None
        """Why the newest version cannot be served, or what is damaged; None where all is well."""
        self.on_change: Callable[[Served], None] = lambda _: None
        self._current = self._open()

    @property
    def current(self) -> Served:
        """The version that new requests get."""
        return self._current

    def encoder(self) -> Encoder:
        """The model, loaded once for all versions that it made.

        Raises:
            MmindexError: it cannot be had, or is not the one that made the index.
        """
        return self._current.session.vectorizer.encoder

    def watch(self) -> None:
        """Follow publishes in a thread until :meth:`close`."""
        self._watcher = threading.Thread(target=self._follow, name="serve-watch", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop following, and let go of the model."""
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
        """Move to the published version if it is another one."""
        log = get_logger("serve")
        try:
            pointer = versions.read_current_pointer(self._layout)
            if pointer is None or pointer == self._current.pointer:
                return
            served = self._open()
        except MmindexError as error:
            if self.problem != error.message:
                log.error("the new version cannot be served", why=error.message)
            self.problem = error.message
            return
        self._current, self.problem = served, None
        log.info("serving a new version", version=served.number)
        self.on_change(served)

    def _open(self) -> Served:
        session = open_session(self._root, self._device)
        load, snapshot = session.load, session.snapshot

        def shared() -> Encoder:
            with self._model:
                known = self._encoder
                if known is None or known.info.fingerprint != snapshot.encoder.fingerprint:
                    self._encoder = load()
                return self._encoder  # type: ignore[return-value]  # just set

        shared_session = Session(snapshot, shared)
        hold = snapshot.hold
        pointer = versions.read_current_pointer(self._layout)
        if pointer is None or hold is None or pointer.version != hold.manifest.version:
            return self._open()  # published meanwhile
        return Served(shared_session, pointer)
