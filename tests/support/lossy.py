"""Record everything that a block of code does to names and durability of the files in a folder.

Python reports to an audit hook every file that is opened for writing, and every rename, removal and
new folder. ``os.fsync`` reports nothing and is replaced. All operations of store code are therefore
recorded, whichever function it uses. Contents are read when a file is synced or renamed, and at the
end; :mod:`support.power` generates the possible contents in between.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

import support.dying  # noqa: F401  # its hook comes first: what it prevents did not happen

# Their callers are recorded as the sites of an fsync.
_PASSED_ON = ("sync_directory", "counted")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes and modification time (ns) of a file."""

    data: bytes
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Event:
    """One operation.

    ``kind``: ``create``, ``sync`` (a file), ``sync_dir``, ``rename``, ``unlink``, ``mkdir``,
    ``rmdir``, or ``mark``. Paths are relative to the folder. ``contents`` are those of the file
    (``sync``, ``rename``) or, if a folder is renamed, of all files in it. ``site`` is the line of
    product code that called fsync.
    """

    kind: str
    path: str
    target: str = ""
    contents: dict[str, Content] = field(default_factory=dict)
    site: str = ""


class Recorder:
    """The events below one folder, in order."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.events: list[Event] = []

    def mark(self, name: str) -> None:
        """Record that something has ended."""
        self.events.append(Event("mark", name))

    def relative(self, path: Any, descriptor: int = -1) -> str | None:
        """Return ``path`` relative to the folder; None if it is elsewhere."""
        if isinstance(path, int):
            return None
        name = os.fspath(path)
        name = os.fsdecode(name)
        if not os.path.isabs(name):  # noqa: PTH117  # called for every open: pathlib is slow
            base = os.readlink(f"/proc/self/fd/{descriptor}") if descriptor >= 0 else os.getcwd()  # noqa: PTH109, PTH115
            name = os.path.join(base, name)  # noqa: PTH118
        if name == self.root:
            return ""
        return name[len(self.root) + 1 :] if name.startswith(self.root + "/") else None

    def absolute(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def contents(self, path: str) -> dict[str, Content]:
        """Return everything in a file, or in the files below a folder."""
        top = Path(self.absolute(path))
        files = [file for file in top.rglob("*") if file.is_file()] if top.is_dir() else [top]
        return {
            str(file.relative_to(self.root)): Content(file.read_bytes(), file.stat().st_mtime_ns)
            for file in files
        }

    def heard(self, event: str, args: tuple[Any, ...]) -> None:
        """Handle an audit event: record it if it changes something below the folder."""
        if event == "open":
            self._opened(*args)
        elif event == "os.rename":
            source, target = self.relative(args[0], args[2]), self.relative(args[1], args[3])
            assert (source is None) == (target is None), f"{args[0]} crosses the store's border"
            if source is not None and target is not None:
                self.events.append(Event("rename", source, target, self.contents(source)))
        elif event in ("os.remove", "os.rmdir", "os.mkdir"):
            path = self.relative(args[0], args[-1])
            there = path is not None and os.path.lexists(self.absolute(path))
            if path is not None and there != (event == "os.mkdir"):  # otherwise, it will fail
                kind = {"os.remove": "unlink", "os.rmdir": "rmdir", "os.mkdir": "mkdir"}[event]
                self.events.append(Event(kind, path))

    def _opened(self, path: Any, _mode: Any, flags: Any) -> None:
        if isinstance(flags, int) and flags & _WRITING:
            found = self.relative(path)
            if found is not None and not (flags & os.O_DIRECTORY):
                self.events.append(Event("create", found))

    def synced(self, descriptor: int, site: str) -> None:
        """Record an fsync of a file or folder below the folder."""
        path = self.relative(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
        if path is None:
            return
        if os.path.isdir(self.absolute(path)):  # noqa: PTH112
            self.events.append(Event("sync_dir", path, site=site))
        else:
            self.events.append(Event("sync", path, contents=self.contents(path), site=site))


_active: list[Recorder] = []  # at most one
_inside = threading.local()
_real_fsync = os.fsync


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _active or not (event == "open" or event.startswith("os.")):
        return
    if getattr(_inside, "hook", False):
        return
    _inside.hook = True
    try:
        _active[0].heard(event, args)
    finally:
        _inside.hook = False


def _fsync(descriptor: int) -> None:
    _real_fsync(descriptor)
    if _active:
        frame = sys._getframe(1)
        while frame.f_code.co_name in _PASSED_ON and frame.f_back is not None:
            frame = frame.f_back
        _active[0].synced(descriptor, site_of(frame.f_code, frame.f_lineno))


def site_of(code: CodeType, line: int) -> str:
    """Return the name of a line of code in events."""
    return f"{Path(code.co_filename).name}:{line} {code.co_qualname}"


sys.addaudithook(_hook)  # permanently, because an audit hook cannot be removed


@contextmanager
def recording(root: Path) -> Iterator[Recorder]:
    """Record what the block does below ``root`` (absolute, without links)."""
    assert not _active, "recording within recording"
    recorder = Recorder(root)
    _active.append(recorder)
    os.fsync = _fsync
    try:
        yield recorder
    finally:
        os.fsync = _real_fsync
        _active.clear()
