"""Tables of long jobs: a job that was interrupted goes on, and another job starts again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmindex.core.errors import BusyError, CannotCreateError, UsageError
from mmindex.core.system import lock_file
from mmindex.decoder import table
from mmindex.decoder.table import PARTIAL, Row, write_rows
from mmindex.store import holds

TOTAL = 10


def schema(question: str = "how many?") -> pa.Schema:
    fields = [("id", pa.string()), ("error", pa.string())]
    return pa.schema(fields, metadata={"mmindex.prompt": question})


class Job:
    """Rows of a job; each is made once, and the job can be killed after some of them."""

    def __init__(self, *, killed_after: int = TOTAL) -> None:
        self.made: list[int] = []
        self.killed_after = killed_after

    def __call__(self, done: int) -> Iterator[Row]:
        for number in range(done, TOTAL):
            if len(self.made) == self.killed_after:
                raise KeyboardInterrupt
            self.made.append(number)
            yield f"row {number}", "bad" if number == 3 else None


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_ROWS", 2)


def names(path: Path) -> list[str]:
    found: list[str] = pq.read_table(path)["id"].to_pylist()
    return found


def interrupted(path: Path, after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_rows(path, schema(), Job(killed_after=after), TOTAL)
    assert not path.exists()


def test_a_table_is_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    report = write_rows(path, schema(), Job(), TOTAL)
    assert (report.rows, report.failed, report.resumed) == (TOTAL, 1, 0)
    assert names(path) == [f"row {n}" for n in range(TOTAL)]
    assert pq.read_schema(path).metadata[b"mmindex.prompt"] == b"how many?"
    assert [one.name for one in tmp_path.iterdir()] == ["t.parquet"]


@pytest.mark.parametrize("after", range(TOTAL))
def test_a_killed_job_goes_on_where_it_stopped(tmp_path: Path, after: int) -> None:
    path, whole = tmp_path / "t.parquet", tmp_path / "whole.parquet"
    interrupted(path, after)
    job = Job()
    report = write_rows(path, schema(), job, TOTAL)
    assert report.resumed == after // 2 * 2
    assert job.made == list(range(report.resumed, TOTAL))
    write_rows(whole, schema(), Job(), TOTAL)
    assert path.read_bytes() == whole.read_bytes()


def test_a_job_that_is_killed_again_and_again_ends(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for _ in range(4):
        interrupted(path, 2)
    report = write_rows(path, schema(), Job(), TOTAL)
    assert (report.rows, report.resumed) == (TOTAL, 8)


def test_another_job_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    interrupted(path, 5)
    job = Job()
    report = write_rows(path, schema("where?"), job, TOTAL)
    assert report.resumed == 0
    assert job.made == list(range(TOTAL))


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def nothing(_: bytes) -> bytes:
    return b""


def bad_footer(content: bytes) -> bytes:
    size = int.from_bytes(content[-8:-4], "little")
    return content[: -8 - size] + b"\xff" * size + content[-8:]


def bad_page(content: bytes) -> bytes:
    return content[:4] + b"\xff" * 30 + content[34:]


def other_word(content: bytes) -> bytes:
    return content.replace(b"row 2", b"row 7", 1)


@pytest.mark.parametrize("damage", [cut, nothing, bad_footer, bad_page, other_word])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_parts_before_a_damaged_one_are_kept(
    tmp_path: Path, number: int, damage: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.parquet"
    interrupted(path, 7)
    part = tmp_path / f"t.parquet{PARTIAL}" / f"{number:06d}.parquet"
    content = part.read_bytes()
    part.write_bytes(damage(content))
    expected = 6 if part.read_bytes() == content else number * 2
    assert write_rows(path, schema(), Job(), TOTAL).resumed == expected
    assert names(path) == [f"row {n}" for n in range(TOTAL)]
    assert "changed" not in capfd.readouterr().err


def test_rows_of_a_missing_part_are_written_again(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    interrupted(path, 7)
    (tmp_path / f"t.parquet{PARTIAL}" / "000001.parquet").unlink()
    assert write_rows(path, schema(), Job(), TOTAL).resumed == 2
    assert names(path) == [f"row {n}" for n in range(TOTAL)]


def test_a_process_that_opened_a_removed_lock_takes_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    lock, calls = holds.lock_file, []

    def removed_first(descriptor: int, *, shared: bool = False) -> None:
        if not calls:
            shutil.rmtree(tmp_path / f"t.parquet{PARTIAL}")
        calls.append(descriptor)
        lock(descriptor, shared=shared)

    monkeypatch.setattr(holds, "lock_file", removed_first)
    assert write_rows(path, schema(), Job(), TOTAL).rows == TOTAL
    assert len(calls) == 2
    assert [one.name for one in tmp_path.iterdir()] == ["t.parquet"]


def test_two_processes_do_not_write_one_table(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    folder = tmp_path / f"t.parquet{PARTIAL}"
    folder.mkdir()
    descriptor = os.open(folder / "LOCK", os.O_RDWR | os.O_CREAT)
    try:
        lock_file(descriptor)
        with pytest.raises(BusyError, match="another process"):
            write_rows(path, schema(), Job(), TOTAL)
    finally:
        os.close(descriptor)


def test_a_table_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    job = Job()
    (tmp_path / "there.parquet").touch()
    with pytest.raises(UsageError, match="already exists"):
        write_rows(tmp_path / "there.parquet", schema(), job, TOTAL)
    with pytest.raises(CannotCreateError):
        write_rows(tmp_path / "none" / "t.parquet", schema(), job, TOTAL)
    assert job.made == []


def test_no_rows_are_a_table_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    assert write_rows(path, schema(), lambda _: iter(()), 0).rows == 0
    assert names(path) == []
