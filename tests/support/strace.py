"""List the system calls of a run on a store, and make one of them fail with strace.

https://strace.io: ``-e inject=CALL:when=N`` counts for each thread on its own. A run's writes all
come from its main thread (:func:`store_calls` checks it), so only that one is traced then.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

# fmt: off
# Every call on x86-64 and arm64 that can change a file, a name or a lock.
CHANGING: Final = (
    "openat", "openat2", "creat", "write", "writev", "pwrite64", "pwritev", "pwritev2",
    "fsync", "fdatasync", "sync_file_range", "rename", "renameat", "renameat2",
    "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
    "truncate", "ftruncate", "fallocate", "flock", "copy_file_range", "sendfile",
    "fchmod", "fchmodat", "utimensat",
)
READING: Final = (
    "read", "pread64", "stat", "fstat", "lstat", "newfstatat", "statx", "getdents64", "lseek",
    "access", "faccessat2", "close",
)
# Calls that can fail because of a full disk.
GROWING: Final = frozenset({
    "openat", "write", "writev", "pwrite64", "fsync", "fdatasync", "rename", "renameat",
    "renameat2", "mkdir", "mkdirat", "link", "linkat", "ftruncate", "fallocate",
})
# fmt: on
_OPENS_TO_CHANGE: Final = re.compile(r"O_(CREAT|TRUNC|WRONLY|RDWR)")
_LINE: Final = re.compile(r"^(?:(?P<thread>\d+)\s+)?(?P<call>\w+)\((?P<rest>.*)$")
_ATTACH_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Call:
    """The ``number``-th call of its name in its thread; ``text`` shows its arguments."""

    thread: int
    name: str
    number: int
    text: str

    @property
    def changes(self) -> bool:
        """Return whether it can change the store (opening for reading cannot)."""
        if self.name.startswith("open"):
            return _OPENS_TO_CHANGE.search(self.text) is not None
        return self.name in CHANGING


def missing() -> str:
    """Return why strace cannot be used here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    try:
        done = subprocess.run(
            ["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, timeout=30
        )
    except subprocess.TimeoutExpired:
        return "strace hangs here"
    return "" if done.returncode == 0 else f"ptrace is refused: {done.stderr.decode().strip()}"


class Tracer:
    """strace, attached to a process; use as a context manager that ends with the process.

    Args:
        pid: the process; it must wait for something, and begin after this returns.
        log: where strace writes.
        names: calls to list.
        inject: the value of ``-e inject=``; then only the main thread is traced.
    """

    def __init__(self, pid: int, log: Path, names: Sequence[str], inject: str = "") -> None:
        known = ",".join(f"?{name}" for name in names)  # "?": this machine may not have it
        expressions = [f"trace={known}", "signal=none", *([f"inject={inject}"] if inject else [])]
        argv = ["strace", "-y", "-s", "0", "-o", str(log), "-p", str(pid)]
        argv += [] if inject else ["-f"]
        argv += [word for expression in expressions for word in ("-e", expression)]
        self._process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr
        line = self._process.stderr.readline()
        assert "attached" in line, f"strace: {line}"
        end = time.monotonic() + _ATTACH_S
        status = Path(f"/proc/{pid}/status")
        while f"TracerPid:\t{self._process.pid}\n" not in status.read_text():
            assert time.monotonic() < end, "strace did not attach"
            time.sleep(0.001)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


def calls(log: Path, root: Path) -> Iterator[Call]:
    """Return the calls in the log of strace that concern something below ``root``, in order."""
    counts: Counter[tuple[int, str]] = Counter()
    with log.open(encoding="utf-8", errors="backslashreplace") as lines:
        for line in lines:
            if (match := _LINE.match(line)) is None:
                continue  # a signal, an exit, or the end of a call that began on another line
            thread, name = int(match["thread"] or 0), match["call"]
            counts[thread, name] += 1
            if below(match["rest"], root):
                yield Call(thread, name, counts[thread, name], match["rest"])


def below(text: str, root: Path) -> bool:
    """Return whether a line in the log of strace names ``root`` or something inside it."""
    return re.search(re.escape(str(root)) + r"[/>\"]", text) is not None


def store_calls(log: Path, root: Path, main_thread: int) -> list[Call]:
    """Return these calls; only the main thread may make changes, so that ``when`` finds them."""
    found = list(calls(log, root))
    strangers = [call for call in found if call.changes and call.thread != main_thread]
    assert not strangers, f"threads other than the main one write into the store: {strangers[:3]}"
    return [call for call in found if call.thread == main_thread]
