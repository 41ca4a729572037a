"""``completion``: the suggestions in each shell, without starting mmindex."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.command import mmindex

CASES = [
    ("mmindex qua", ["quarantine"]),
    ("mmindex query --col", ["--columns"]),
    ("mmindex query --format ", ["json", "paths", "table", "tsv"]),
    ("mmindex quarantine ", ["list", "retry"]),
    ("mmindex quarantine list --reason trunc", ["truncated"]),
    ("mmindex build --source fold", ["folder:"]),
    ("mmindex check --re", ["--repair"]),
    ("mmindex query --store sto", ["store"]),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        (folder / shell).write_text(mmindex("completion", shell).stdout)
    (folder / "store").mkdir()
    return folder


def need(shell: str) -> str:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    return program


@pytest.mark.parametrize(("line", "offered"), CASES)
def test_bash(scripts: Path, line: str, offered: list[str]) -> None:
    words = f"{line}''" if line.endswith(" ") else line
    script = (
        f"source ./bash; COMP_WORDS=({words}); "
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _mmindex 2>/dev/null; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run([need("bash"), "-c", script], cwd=scripts, capture_output=True, text=True)
    assert sorted(done.stdout.split()) == offered, done.stderr


@pytest.mark.parametrize(("line", "offered"), CASES)
def test_fish(scripts: Path, line: str, offered: list[str]) -> None:
    script = f"source ./fish; complete -C '{line}'"
    done = subprocess.run([need("fish"), "-c", script], cwd=scripts, capture_output=True, text=True)
    words = [one.split("\t")[0].rstrip("/") for one in done.stdout.splitlines()]
    assert sorted(words) == offered, done.stderr


def test_zsh_accepts_the_script(scripts: Path) -> None:
    script = "autoload -U compinit && compinit -u -D && source ./zsh && print $_comps[mmindex]"
    done = subprocess.run(
        [need("zsh"), "-f", "-c", script], cwd=scripts, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("_mmindex\n", "")


def test_an_unknown_shell_is_a_usage_error() -> None:
    assert "'tcsh' is not one of" in mmindex("completion", "tcsh", code=2).stderr
