"""Write the rows of a long job to a Parquet file, and continue an interrupted job.

Rows are first written to numbered files in a folder beside the new file. If a run finds a folder of
the same job, it continues after the last row in this folder. At the end, the rows are copied into
one file, and the folder is removed.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from mmindex.core.durable import check_target, file_aside
from mmindex.core.errors import BusyError, UsageError, os_errors
from mmindex.core.progress import counter, get_logger
from mmindex.store.holds import lock_exclusive, unlock

Row = Sequence[str | float | int | None]

PARTIAL: Final = ".partial"
_LOCK: Final = "LOCK"
_ROWS: Final = 4_096  # rows in memory
_PART_S: Final = 30.0  # time between two parts: the work that is repeated after an interruption


@dataclass(frozen=True, slots=True)
class TableReport:
    """The result of writing a table.

    Attributes:
        path: the file.
        rows: the number of rows.
        failed: the number of rows with an error; their text is null.
        resumed: the number of rows from an interrupted run.
    """

    path: Path
    rows: int
    failed: int
    resumed: int


def write_rows(
    path: Path, schema: pa.Schema, rows: Callable[[int], Iterator[Row]], total: int
) -> TableReport:
    """Write a table, or the rest of an interrupted one.

    Args:
        path: the new file; it appears when it is complete.
        schema: the columns, one of them ``error``; its metadata identifies the job.
        rows: yields the rows of the job without the given number of first rows, always in the same
            order.
        total: the number of rows, for the progress bar.

    Raises:
        UsageError: the file exists.
        CannotCreateError: its folder does not exist.
        BusyError: another process is writing it.
        MmindexError: it cannot be written.
    """
    check_target(path)
    _require_new(path)
    folder = path.with_name(path.name + PARTIAL)
    with os_errors(path), _held(folder):
        if path.exists():  # another process has completed it meanwhile
            _remove(folder)
        _require_new(path)
        parts = _found_parts(folder, schema)
        done = sum(pq.read_metadata(part).num_rows for part in parts)
        parts += _write_parts(folder, len(parts), schema, rows(done), (done, total))
        count, failed = _join(path, parts, schema)
        _remove(folder)
    return TableReport(path, count, failed, done)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Create the folder of the parts, and lock it for this process."""
    descriptor = None
    while descriptor is None:  # None: the process that completed the table has removed the folder
        folder.mkdir(exist_ok=True)
        try:
            with suppress(FileNotFoundError):
                (folder / _LOCK).touch()
            descriptor = lock_exclusive(folder / _LOCK)
        except BlockingIOError as error:
            raise BusyError(
                f"{folder}: another process is writing this table", "wait, or use another `out`"
            ) from error
    try:
        yield
    finally:
        unlock(descriptor)


def _remove(folder: Path) -> None:
    """Remove the folder; it loses its name first, so that no process finds it half empty."""
    aside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    folder.rename(aside)
    shutil.rmtree(aside)


def _require_new(path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} already exists", "remove it, or use another `out`")


def _found_parts(folder: Path, schema: pa.Schema) -> list[Path]:
    """Return the first parts from an earlier run of the same job; remove all others."""
    found = sorted(folder.glob("*.parquet"))
    good: list[Path] = []
    reason = ""
    for part in found:
        if part.name != _name(len(good)):
            reason = f"{_name(len(good))} is missing"
        elif (columns := _columns(part)) is None:
            reason = f"{part.name} is damaged"
        elif not columns.equals(schema, check_metadata=True):
            reason = "the model, question, options or images have changed"
        else:
            good.append(part)
            continue
        break
    if reason:
        get_logger("decoder").warning(
            f"{reason}: rows of an interrupted run are written again",
            folder=str(folder),
            kept=len(good),
            removed=len(found) - len(good),
        )
        for part in reversed(found[len(good) :]):
            part.unlink()
    return good


def _columns(part: Path) -> pa.Schema | None:
    """Read a part and return its columns; None if it is damaged."""
    try:
        with pq.ParquetFile(part, page_checksum_verification=True) as file:
            file.read()
            return file.schema_arrow
    except pa.ArrowException:
        return None
    except OSError as error:
        if error.errno is not None:  # an error of the disk; pyarrow's own errors have no number
            raise
        return None


def _name(number: int) -> str:
    return f"{number:06d}.parquet"


def _write_parts(
    folder: Path, first: int, schema: pa.Schema, rows: Iterator[Row], progress: tuple[int, int]
) -> list[Path]:
    done, total = progress
    parts: list[Path] = []
    with counter(total=total, label="write", unit="row") as bar:
        bar.update(done)
        for some in _groups(rows):
            part = folder / _name(first + len(parts))
            columns = zip(*some, strict=True)
            arrays = [
                pa.array(list(one), field.type) for one, field in zip(columns, schema, strict=True)
            ]
            with file_aside(part) as aside:
                made = pa.Table.from_arrays(arrays, schema=schema)
                pq.write_table(made, aside, write_page_checksum=True)
            parts.append(part)
            bar.update(len(some))
    return parts


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Yield the rows in groups with a limited number of rows and a limited time."""
    group: list[Row] = []
    begun = time.monotonic()
    for row in rows:
        group.append(row)
        if len(group) >= _ROWS or time.monotonic() - begun >= _PART_S:
            yield group
            group, begun = [], time.monotonic()
    if group:
        yield group


def _join(path: Path, parts: Sequence[Path], schema: pa.Schema) -> tuple[int, int]:
    """Copy the parts into one file; return the numbers of rows and of errors."""
    count = failed = 0
    with file_aside(path) as aside, pq.ParquetWriter(aside, schema) as writer:
        for part in parts:
            table = pq.read_table(part, schema=schema)
            writer.write_table(table)
            count += table.num_rows
            failed += table.num_rows - table["error"].null_count
    return count, failed
