"""Simulate kill -9 at an operation, without a process: later operations do not reach the disk.

Every operation on names and every fsync below a folder is counted. The chosen one and all later
ones raise an exception instead, so that no ``finally`` does work that a dead process could not do.
Locks are released by closing files, as the kernel does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_NAMES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir"})


class KilledError(BaseException):
    """The process has died; ``except Exception`` must not catch this."""


@dataclass(slots=True)
class Life:
    """Counts operations from 0; the operation with the number ``ends_at`` is not done.

    Also not done are the first rename to a file called ``before``, and everything after a rename to
    ``after`` or after the rename that names the last of ``objects`` objects.
    """

    root: str
    ends_at: int
    before: str = ""
    after: str = ""
    objects: int = sys.maxsize
    done: int = 0

    @property
    def ended(self) -> bool:
        return self.done >= self.ends_at

    def count(self) -> None:
        if self.ended:
            raise KilledError
        self.done += 1

    def below(self, path: Any) -> bool:
        return not isinstance(path, int) and os.fsdecode(path).startswith(self.root)


_lives: list[Life] = []  # at most one


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _lives:
        return
    life = _lives[0]
    if event == "open":
        path, _, flags = args
        if isinstance(flags, int) and flags & _WRITING and life.below(path):
            life.count()
    # Relative names are used with the descriptor of a folder of ours that is being emptied.
    elif event in _NAMES and (life.below(args[0]) or not os.path.isabs(args[0])):  # noqa: PTH117
        if event == "os.rename" and Path(args[1]).name == life.before:
            life.ends_at = life.done
        life.count()
        if event == "os.rename":
            life.objects -= Path(args[1]).parent.parent.name == "objects"
            if not life.objects or Path(args[1]).name == life.after:
                life.ends_at = life.done


sys.addaudithook(_hook)  # permanently, because an audit hook cannot be removed


@contextmanager
def dying(
    root: Path,
    ends_at: int = sys.maxsize,
    *,
    before: str = "",
    after: str = "",
    objects: int = sys.maxsize,
) -> Iterator[Life]:
    """Die at the operation with the number ``ends_at`` below ``root``, if there are that many.

    Afterwards, :attr:`Life.ended` states whether this happened; the block catches the exception.
    """
    assert not _lives, "dying within dying"
    life = Life(str(root), ends_at, before, after, objects)
    _lives.append(life)
    real = os.fsync

    def counted(descriptor: int) -> None:
        if life.below(os.readlink(f"/proc/self/fd/{descriptor}")):  # noqa: PTH115
            life.count()
        real(descriptor)

    os.fsync = counted
    try:
        yield life
    except KilledError:
        assert life.ended
    finally:
        os.fsync = real
        _lives.clear()
