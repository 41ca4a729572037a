"""Files outside stores are replaced whole or not at all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mmindex.core.durable import file_aside

LONG = "山" * 80 + ".html"  # 245 bytes


@pytest.mark.parametrize("name", ["page.html", LONG, "é" * 120, "\udcff" * 200])
def test_a_file_of_any_name_is_replaced(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    for content in ("old", "new"):
        with file_aside(target) as aside:
            aside.write_text(content)
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text("old")

    def fail() -> None:
        with file_aside(target) as aside:
            aside.write_text("half")
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_files_of_killed_processes_are_removed_and_those_of_living_ones_kept(
    tmp_path: Path,
) -> None:
    target = tmp_path / LONG
    with file_aside(target) as aside:
        aside.write_text("x")
        ours = aside.name
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / ours.replace(f".{os.getpid()}.", f".{dead.pid}.")
    alive = tmp_path / ours
    for one in (left, alive):
        one.write_text("half")
    with file_aside(target) as aside:
        aside.write_text("y")
    assert {path.name for path in tmp_path.iterdir()} == {LONG, alive.name}
