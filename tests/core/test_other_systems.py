"""Importing mmindex and showing help work without calls that only Linux has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmindex.core import system
from mmindex.upkeep import doctor

# Python without everything that only Unix has: modules, functions, constants, the C library.
WITHOUT_UNIX = """
import asyncio, ctypes, os, signal, subprocess, sys  # these choose by system while being imported
for name in ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp"):
    sys.modules[name] = None
for module, names in {
    os: "sched_getaffinity geteuid getuid statvfs pread pwrite O_NONBLOCK O_DIRECTORY O_CLOEXEC "
        "O_NOFOLLOW ST_RDONLY getpgid killpg setsid nice fchmod chown",
    signal: "setitimer ITIMER_REAL SIGALRM SIGKILL SIGHUP SIGUSR1",
}.items():
    for name in names.split():
        delattr(module, name)
class NamelessCDLL(ctypes.CDLL):
    def __init__(self, name, *args, **kwargs):
        if name is None:
            raise TypeError("no C library without a name")
        super().__init__(name, *args, **kwargs)
ctypes.CDLL = NamelessCDLL
"""
IMPORT_ALL = """
import importlib, pkgutil
import mmindex, mmindex_cli
found = []
for package in (mmindex, mmindex_cli):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            found.append(module.name)
print(len(found))
"""
RUN = """
import contextlib, io, json
from mmindex_cli.app import main
results = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["mmindex", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as ending:
            code = ending.code or 0
    results.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""


def python(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_UNIX + script, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(*commands: list[str]) -> list[tuple[int, str, str]]:
    return [tuple(result) for result in json.loads(python(RUN, json.dumps(commands)))]


@pytest.mark.slow
def test_every_module_can_be_imported():
    assert int(python(IMPORT_ALL)) > 200


def test_help_and_version_work():
    from mmindex_cli.app import _Commands
    from mmindex_cli.lazy import Group

    commands = [["--version"], ["--help"]]
    for name, entry in _Commands.entries.items():
        inner = entry.entries if isinstance(entry, Group) else {}
        commands += [[name, "--help"], *([name, other, "--help"] for other in inner)]
    for command, (code, out, err) in zip(commands, run(*commands), strict=True):
        assert (code, err) == (0, ""), command
        assert "mmindex" in out


def test_a_command_that_needs_a_store_reports_what_is_missing(tmp_path):
    store = str(tmp_path / "store")
    commands = [
        ["build", "--source", "scenes:3", "--store", store],
        ["crawl", "--source", "scenes:3", "--store", store],
        ["status", "--store", store],
        ["query", "a boat", "--store", store],
        ["gc", "--store", store],
        ["check", "--store", store],
    ]
    for command, (code, _, err) in zip(commands, run(*commands), strict=True):
        assert code == 69, (command, err)
        assert "'fcntl'" in err, command
        assert "WSL2" in err, command
        assert "Traceback" not in err
    assert not Path(store).exists()


def test_doctor_names_a_system_without_locks(monkeypatch):
    assert doctor._system().state is doctor.State.OK
    monkeypatch.setattr(system, "fcntl", None)
    assert doctor._system().state is doctor.State.BROKEN


def test_cores_are_counted_where_affinity_is_unknown(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert system.usable_cores() == 5
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert system.usable_cores() == 1


def test_a_process_exists_until_it_was_waited_for():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert system.process_exists(child.pid)
    child.communicate(b"\n")
    assert not system.process_exists(child.pid)
    assert not system.process_exists(9_999_999_999)


WORKER = """
import multiprocessing, time
from mmindex.core import system
from mmindex.upkeep import doctor

def work(ready):
    system._c_library = lambda: None
    system.die_with_parent()
    ready.send("started")
    time.sleep(200)

if __name__ == "__main__":
    mine, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    context.Process(target=work, args=(theirs,)).start()
    print(mine.recv(), flush=True)
    time.sleep(200)
"""


def test_a_worker_ends_with_its_parent_without_help_of_the_kernel(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(WORKER)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"
    parent.kill()
    parent.communicate(timeout=50)  # ends when the worker, which also holds the pipe, has ended
