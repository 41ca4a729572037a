"""A process that has imported everything and forks a child for each run, in milliseconds.

The child waits before it starts, so that a tracer can be attached. There is one job at a time. The
process has no threads, so forking is safe.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_TESTS = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: its exit code or signal, its result and its output."""

    code: int | None
    signal: int | None
    result: Any
    stderr: str


class Zygote:
    """Runs functions of :mod:`support.jobs` in forked children; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "JE_ARROW_MALLOC_CONF": "background_thread:false",
            "PYTHONPATH": os.pathsep.join([str(_TESTS), *sys.path]),
            "PYTHONHASHSEED": "0",
            "MMINDEX_STORE": "",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.zygote", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)
        assert self._process.stdout
        self._process.stdout.close()

    def run(self, job: str, **values: Any) -> Ended:
        """Run a job to its end."""
        self.start(job, **values)
        self.release()
        return self.wait()

    def start(self, job: str, *, file_limit: int | None = None, **values: Any) -> int:
        """Fork a child that waits to be released; returns its process id.

        Args:
            job: name of a function of :mod:`support.jobs`.
            file_limit: RLIMIT_FSIZE of the child, in bytes.
            **values: its keyword arguments.
        """
        answer = self._ask({"job": job, "values": values, "file_limit": file_limit})
        return int(answer["pid"])

    def release(self) -> None:
        """Let the child start."""
        self._say("go")

    def wait(self) -> Ended:
        """Wait until the child ends."""
        answer = self._answer()
        stderr = (self._folder / "stderr").read_bytes().decode("utf-8", "backslashreplace")
        out = (self._folder / "result").read_text()
        return Ended(answer["code"], answer["signal"], json.loads(out) if out else None, stderr)

    def _ask(self, request: object) -> dict[str, Any]:
        self._say(request)
        return self._answer()

    def _say(self, request: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self.__exit__()
            raise RuntimeError(f"the zygote ended with exit code {code}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _serve(folder: Path) -> None:
    import pyarrow

    pyarrow.set_cpu_count(1)
    jobs = importlib.import_module("support.jobs")
    answers = os.fdopen(os.dup(1), "w")
    # Printed text must not mix with the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _import_what_a_build_imports(folder, jobs)
    gc.freeze()
    _reply(answers, {"ready": True})
    while line := sys.stdin.readline():
        request = json.loads(line)
        gate, opener = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(opener)
            _live(folder, gate, getattr(jobs, request["job"]), request)
        os.close(gate)
        _reply(answers, {"pid": child})
        sys.stdin.readline()
        os.close(opener)  # the child reads the end of the pipe, and begins
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        ended = {"code": code, "signal": None} if code >= 0 else {"code": None, "signal": -code}
        _reply(answers, ended)
    os._exit(0)  # libraries print a lot when they clean up


def _import_what_a_build_imports(folder: Path, jobs: Any) -> None:
    """A child runs this, so that no thread of a library ever runs in this process."""
    names = folder / "modules"
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT, 0o644), 2)
            jobs.warm_up(folder / "warm-up")
            names.write_text("\n".join(sys.modules))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0, (folder / "stderr").read_text()
    for name in names.read_text().split("\n"):
        with suppress(ImportError):  # names that only libraries add
            importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "threads, and forks to come"


def _reply(answers: Any, answer: object) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _live(folder: Path, gate: int, job: Callable[..., Any], request: dict[str, Any]) -> None:
    """The child: never returns."""
    code = 99
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        out = os.open(folder / "result", flags, 0o644)
        os.dup2(os.open(folder / "stderr", flags, 0o644), 2)
        os.read(gate, 1)
        os.close(gate)
        if request["file_limit"] is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"], hard))
        result = job(**request["values"])
        sys.stderr.flush()
        code = result if isinstance(result, int) else 0
        os.write(out, json.dumps(result).encode())
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        raise
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
