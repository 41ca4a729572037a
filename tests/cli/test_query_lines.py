"""The ``query`` command answers every line of a file or stream in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from mmindex.search.query import MAX_LINE, read_lines
from support.asking import run


@pytest.mark.usefixtures("store")
def test_every_line_of_a_file_gets_a_line_in_order_and_errors_show_in_the_exit_code(
    tmp_path: Path,
) -> None:
    file = tmp_path / "queries.txt"
    file.write_bytes("red\n\n白\n".encode())
    done = run("--queries", str(file), "-k", "1", "--format", "json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["query"] for answer in answers] == ["red", "", "白"]
    assert [answer.get("error") for answer in answers] == [None, "the query is empty", None]
    assert done.exit_code == 65
    assert "1 of the queries failed" in done.stderr


@pytest.mark.usefixtures("store")
def test_a_very_long_line_is_refused_without_being_read_into_memory(tmp_path: Path) -> None:
    """A line of 64 MiB takes a few hundred KiB of memory; the lines around it are answered."""
    asked = tmp_path / "asked.txt"
    with asked.open("wb") as file:
        file.write(b"red\n")
        file.truncate(file.tell() + (64 << 20))
        file.seek(0, 2)
        file.write(b"\nblue\n" + b"w" * MAX_LINE + b"\n" + b"w" * (MAX_LINE + 1))
    tracemalloc.start()
    with asked.open("rb") as opened:
        assert [len(line) for line in read_lines(opened)] == [
            *(4, MAX_LINE + 1, 5, MAX_LINE + 1, MAX_LINE + 1)
        ]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    done = run("--queries", str(asked), "--format", "json")
    assert done.exit_code == 65
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer.get("error") for answer in answers] == [
        *(None, "longer than 65,536 bytes", None, None, "longer than 65,536 bytes")
    ]
    assert [len(answer["query"]) for answer in answers] == [3, 201, 4, MAX_LINE, 201]
    assert "longer than" in run("--like", str(asked)).stderr


@pytest.mark.usefixtures("store")
def test_queries_can_come_from_standard_input() -> None:
    done = run("--queries", "-", "-k", "1", "--format", "tsv", stdin=b"red\nblue")
    assert done.exit_code == 0
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["query", "red", "blue"]


@pytest.mark.usefixtures("store")
def test_an_empty_file_of_queries_has_no_answers() -> None:
    done = run("--queries", "-", "--format", "json", stdin=b"")
    assert (done.exit_code, done.stdout) == (0, "")


@pytest.mark.usefixtures("store")
def test_a_condition_applies_to_every_line_of_a_file() -> None:
    done = run(
        *("--queries", "-", "--where", "image_id like '%3.png'", "--format", "json"),
        stdin=b"red\nblue\n",
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [[hit["id"] for hit in answer["hits"]] for answer in answers] == [
        ["folder/00003.png"]
    ] * 2


def test_a_reader_that_closes_the_pipe_is_not_a_failure(store: Path) -> None:
    """``mmindex query ... | head -1`` ends with 0."""
    script = (
        "import sys\n"
        "from mmindex.search import vectorize\n"
        "from support.models import FakeEncoder\n"
        "vectorize._load = lambda *_: FakeEncoder()\n"
        "from mmindex_cli.app import main\n"
        "sys.argv = ['mmindex', 'query', '--queries', '-', '--format', 'json']\n"
        "main()\n"
    )
    environment = {
        **os.environ,
        "MMINDEX_STORE": str(store),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"red\n" * 2_000)
        process.stdin.close()
        assert json.loads(process.stdout.readline())["query"] == "red"
        process.stdout.close()
        assert process.wait(60) == 0
        assert b"Traceback" not in process.stderr.read()
