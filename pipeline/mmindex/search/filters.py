"""``--where``: an SQL condition on the images table, and the ids that match it.

The condition can come from an untrusted user, for example through a web form, so there are three
protections: it is parsed first, and only what :mod:`mmindex.search.condition` lists is allowed;
DuckDB runs it as a filter (never as a statement) in a separate in-memory database without file
access, extensions, access to Python variables and changes of settings; and memory, threads and
time are limited.

DuckDB then cannot read the files of the store, so the table is passed in Arrow batches: only the
columns in the condition, one batch at a time, for any size of the corpus.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.core.errors import UsageError, duckdb_interrupts
from mmindex.core.modality import Modality
from mmindex.search.condition import TABLE, check, in_brackets, one_line
from mmindex.store.objects import valid_text
from mmindex.store.snapshot import Snapshot

Rows = NDArray[np.bool_]
Int64 = NDArray[np.int64]

TIMEOUT_S: Final = 60.0
_INTERRUPT_EVERY_S: Final = 0.05
_SAFE_SETTINGS: Final = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "memory_limit": "512MB",
    "threads": "1",
}

# The great-circle distance between two locations in degrees, with the haversine formula (R. W.
# Sinnott, "Virtues of the Haversine", Sky and Telescope 68(2), 1984) and the Earth's mean radius.
# least() ignores NULL, so without this, images without a location would be at the antipode.
_DISTANCE_KM: Final = """
CREATE MACRO distance_km(lat1, lon1, lat2, lon2) AS CASE
    WHEN lat1 + lon1 + lat2 + lon2 IS NOT NULL THEN 2 * 6371.0088 * asin(least(1, sqrt(
        power(sin(radians(lat2 - lat1) / 2), 2)
        + cos(radians(lat1)) * cos(radians(lat2)) * power(sin(radians(lon2 - lon1) / 2), 2))))
    END
"""

# Errors that a valid condition can cause; any other error of DuckDB is a bug.
_REFUSALS: Final = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.InvalidInputException,
    duckdb.InvalidTypeException,
    duckdb.NotImplementedException,
    duckdb.OutOfMemoryException,
    duckdb.OutOfRangeException,
    duckdb.ParserException,
    duckdb.PermissionException,
    duckdb.SyntaxException,
    duckdb.TypeMismatchException,
)
_WRONG_TYPES: Final = (
    duckdb.BinderException,
    duckdb.ConversionException,
    duckdb.TypeMismatchException,
)


def select_images(snapshot: Snapshot, expression: str, timeout_s: float = TIMEOUT_S) -> Rows:
    """Return which rows of the ``images`` table match a condition.

    Text that is not UTF-8 (lone surrogates in names) is compared with U+FFFD in its place.

    Args:
        snapshot: the version.
        expression: an SQL condition, such as ``width >= 640 and licence like '%BY%'``.
        timeout_s: the time limit.

    Returns:
        bool (images,): true where the condition is true; false where it is false or NULL.

    Raises:
        UsageError: the condition is not valid, names a missing column, uses something that is not
            allowed, or fails on a value.
    """
    with snapshot.open_parquet(TABLE) as file, _database() as database:
        schema = file.schema_arrow
        columns = check(database, expression, schema.names)
        kept = np.zeros(file.metadata.num_rows, dtype=np.bool_)
        row_column = _unused(columns)
        # If the condition names no column, an existing one provides the row numbers.
        batches = file.iter_batches(columns=columns or ["width"])
        first = 0
        with _time_limit(database, timeout_s) as check_time, _explained():
            # Bound once without rows, so that a wrong type is an error even in an empty corpus.
            empty = pa.schema([schema.field(name) for name in columns]).empty_table()
            _matching(database, empty, np.empty(0, dtype=np.int64), row_column, expression)
            for batch in batches:
                check_time()
                rows = np.arange(first, first + batch.num_rows)
                part = pa.table({name: valid_text(batch[name]) for name in columns})
                kept[_matching(database, part, rows, row_column, expression)] = True
                first += batch.num_rows
    return kept


def ids_of(snapshot: Snapshot, side: Modality, rows: Rows) -> Int64:
    """Return the faiss ids for some rows of the ``images`` table.

    Args:
        snapshot: the version, indexed.
        side: ``image`` for the ids of the images, ``text`` for those of their captions.
        rows: bool (images,).

    Returns:
        int64 ids, ascending, without duplicates; empty if no row is selected.
    """

    def column(table: str, name: str) -> Any:
        # Bytes instead of strings: ids can contain lone surrogates, which are not UTF-8.
        return snapshot.table(table, [name])[name].cast(pa.binary())

    wanted = pa.array(rows)
    if side is Modality.IMAGE:
        keys = column("images", "key").filter(wanted)
    else:
        images = column("images", "image_id").filter(wanted)
        owned = pc.is_in(column("captions", "image_id"), value_set=images)
        keys = column("captions", "key").filter(owned)
    known = column(f"ids/{side}", "key")
    found = pc.is_in(known, value_set=pc.unique(keys))
    ids: Int64 = np.flatnonzero(found.to_numpy(zero_copy_only=False)).astype(np.int64)
    return ids


def _unused(columns: Sequence[str]) -> str:
    """Return a column name that is not in use."""
    taken = {column.lower() for column in columns}
    return next(name for n in range(len(taken) + 1) if (name := f"mmindex_row_{n}") not in taken)


def _matching(
    database: duckdb.DuckDBPyConnection, part: pa.Table, rows: Int64, row_column: str, where: str
) -> Int64:
    """Return the elements of ``rows`` (one per row of ``part``) for which the condition is true."""
    table = pa.table({**dict(zip(part.column_names, part.columns, strict=True)), row_column: rows})
    relation = database.from_arrow(table).set_alias(TABLE)
    found = relation.filter(in_brackets(where)).project(row_column).fetchall()
    return np.array([row for (row,) in found], dtype=np.int64)


@contextmanager
def _database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty in-memory database without access to anything else."""
    with (
        duckdb_interrupts(),
        duckdb.connect(":memory:", config=dict(_SAFE_SETTINGS)) as database,
    ):
        database.execute(_DISTANCE_KM).fetchall()
        database.execute("SET lock_configuration = true").fetchall()
        yield database


@contextmanager
def _time_limit(
    database: duckdb.DuckDBPyConnection, timeout_s: float
) -> Iterator[Callable[[], None]]:
    """Interrupt the database after the time limit; yield a check to call between two batches."""
    done, over = threading.Event(), threading.Event()

    def watch() -> None:
        if not done.wait(timeout_s):
            over.set()
            # An interruption between two batches has no effect, so check again.
            while not done.wait(_INTERRUPT_EVERY_S):
                database.interrupt()

    def check_time() -> None:
        if over.is_set():
            raise UsageError(f"`where` took longer than {timeout_s:g} s", "simplify it")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield check_time
    except duckdb.InterruptException:
        check_time()
        raise
    finally:
        done.set()
        watcher.join()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except _REFUSALS as error:
        text = one_line(str(error).partition("\n")[0])
        raise UsageError(
            f"`where`: {text.partition('Error: ')[2] or text}",
            "if a column has another type, use try_cast(COLUMN AS DOUBLE), which is NULL for "
            "other values"
            if isinstance(error, _WRONG_TYPES)
            else "",
        ) from error
