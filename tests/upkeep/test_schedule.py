"""The output of `schedule` works in the minimal environment of cron and with systemd."""

import re
import shutil
import subprocess
from datetime import time
from pathlib import Path

import pytest

from mmindex.core.errors import UsageError
from mmindex.upkeep.schedule import Job, cron_line, parse_at, service_unit, timer_unit, unit_name

# Characters in paths that are special for shells, cron or systemd.
ODD = [
    "plain",
    "with space",
    "it's",
    'say "x"',
    "100%",
    "a$HOME",
    "日本 ünï",
    "back\\slash",
    ";&|#",
]


def job(store, command, **values):
    return Job(tuple(map(str, command)), store, time(3, 5), **values)


def as_cron_runs_it(line):
    """Return the command that cron passes to the shell, without the five fields and ``\\%``."""
    command = line.split(" ", 5)[5]
    assert not re.search(r"(?<!\\)%", command)
    return command.replace(r"\%", "%")


def recorder(folder, codes):
    """A replacement for mmindex that records its arguments; each command has its own exit code."""
    script = folder / "bin" / "my mmindex"
    script.parent.mkdir(parents=True)
    cases = "".join(f"{name}) exit {code};; " for name, code in codes.items())
    script.write_text(
        f'#!/bin/sh\nfor w in "$@"; do printf "[%s]" "$w" >>{folder}/words; done\n'
        f'echo >>{folder}/words; echo "log of $1"; case $1 in {cases}esac\n'
    )
    script.chmod(0o755)
    return script


def run_as_cron(line):
    return subprocess.run(
        ["env", "-i", "/bin/sh", "-c", as_cron_runs_it(line)], cwd="/", capture_output=True
    )


@pytest.mark.parametrize("name", ODD)
def test_the_cron_line_runs_in_an_empty_environment_with_any_path(tmp_path, name):
    store = tmp_path / name
    script = recorder(tmp_path, {})
    line = cron_line(job(store, [script], config=tmp_path / f"{name}.toml"))
    assert line.startswith("5 3 * * * ")
    assert "\n" not in line
    done = run_as_cron(line)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "words").read_text().splitlines() == [
        f"[build][--store][{store}][--config][{tmp_path / name}.toml]",
        f"[gc][--store][{store}]",
    ]
    assert Path(f"{store}.log").read_text() == "log of build\nlog of gc\n"


def test_a_busy_store_sends_no_mail_but_any_other_failure_does(tmp_path):
    for code, out in ((75, b""), (65, b"log of build\n"), (143, b"log of build\n")):
        folder = tmp_path / str(code)
        done = run_as_cron(cron_line(job(folder / "s", [recorder(folder, {"build": code})])))
        assert done.stdout == out
        assert done.returncode == (0 if code == 75 else code)
        assert (folder / "words").read_text().count("[gc]") == 0


def test_a_failing_gc_is_reported_too(tmp_path):
    done = run_as_cron(cron_line(job(tmp_path / "s", [recorder(tmp_path, {"gc": 74})])))
    assert done.returncode == 74
    assert b"log of gc" in done.stdout


@pytest.mark.parametrize("store", [Path("/a\nb"), Path("/" + "x" * 990)])
def test_lines_that_cron_cannot_run_are_refused(store):
    with pytest.raises(UsageError, match="cron"):
        cron_line(job(store, ["/bin/mmindex"]))


def words_of(line):
    """Split a command line by the rules of systemd.syntax(7)."""
    words = []
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)"|(\S+)', line):
        text = match[1] if match[1] is not None else match[2]
        raw = re.sub(
            rb"\\x([0-9a-f]{2})|\\(.)",
            lambda m: bytes([int(m[1], 16)]) if m[1] else m[2],
            text.encode(),
        )
        words.append(raw.decode().replace("%%", "%"))
    return words


@pytest.mark.parametrize("name", [*ODD, "tab\tand\nline"])
def test_each_path_in_a_unit_is_one_word(tmp_path, name):
    store = tmp_path / name
    text = service_unit(job(store, ["/opt/my tools/mmindex"], metrics=tmp_path / "m.prom"))
    commands = re.findall(r"^ExecStart=:(.*)$", text, re.MULTILINE)
    assert [words_of(command) for command in commands] == [
        ["/opt/my tools/mmindex", "build", "--store", str(store), "--metrics-file",
         str(tmp_path / "m.prom")],
        ["/opt/my tools/mmindex", "gc", "--store", str(store)],
    ]  # fmt: skip
    assert re.fullmatch(r"mmindex-[A-Za-z0-9_.-]+", unit_name(job(store, ["/x"])))


@pytest.mark.parametrize("name", [*ODD, "tab\tand\nline"])
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path, name):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    script = recorder(tmp_path, {})
    made = job(tmp_path / name, [script])
    for suffix, text in (("service", service_unit(made)), ("timer", timer_unit(made))):
        (tmp_path / f"mmindex-test.{suffix}").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "mmindex-test.timer"],
        capture_output=True,
        text=True,
    )
    ours = [line for line in done.stderr.splitlines() if "mmindex-test" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_timer_catches_up_after_a_missed_night():
    text = timer_unit(job(Path("/s"), ["/x"]))
    assert "OnCalendar=*-*-* 03:05:00" in text
    assert "Persistent=true" in text
    assert "SuccessExitStatus=75" in service_unit(job(Path("/s"), ["/x"]))


@pytest.mark.parametrize("text", ["", "3", "24:00", "12:60", "-1:00", "03:15:00", "noon", "3:5"])
def test_an_invalid_time_of_day_is_refused(text):
    with pytest.raises(UsageError, match="time of day"):
        parse_at(text)
