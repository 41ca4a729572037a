"""Invalid, dangerous and expensive conditions are refused with the reason."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from mmindex.core.errors import UsageError
from mmindex.search import filters
from mmindex.search.filters import select_images
from support.stores import captions_table, images_table, make_store


@pytest.mark.parametrize(
    "attack",
    [
        "1=1; DROP TABLE images",
        "1=1); DROP TABLE images; --",
        "true) UNION SELECT 1 --",
        "1), (2",
        "true) FROM (VALUES (1)) AS t(a) WHERE (true",
        "width > 1) GROUP BY (2",
        "(SELECT count(*) FROM read_csv('/etc/passwd')) > 0",
        "(SELECT content FROM read_text('/etc/passwd')) LIKE '%root%'",
        "EXISTS (SELECT * FROM glob('/etc/*'))",
        "EXISTS (SELECT * FROM '/etc/passwd')",
        "EXISTS (SELECT * FROM images)",
        "EXISTS (FROM duckdb_settings())",
        "width IN (SELECT 1)",
        "width = ANY (SELECT 1)",
        "EXISTS (SELECT * FROM query('COPY (SELECT 1) TO ''/tmp/x'''))",
        "read_text('/etc/passwd') IS NULL",
        "COPY images TO '/tmp/stolen.csv'",
        "ATTACH '/tmp/other.db'",
        "PRAGMA database_list",
        "INSTALL httpfs",
        "SET threads = 8",
        "getenv('HOME') = '/root'",
        "current_setting('memory_limit') = ''",
        "getvariable('x') = 1",
        "nextval('s') = 1",
        "now() > '2000-01-01'",
        "random() < 0.5",
        "count(*) > 1",
        "sum(width) > 1",
        "row_number() OVER () > 1",
        "COLUMNS(*) IS NOT NULL",
        "? = 1",
        "$1 = 1",
        "#1 = 1",
        "list_transform([1], lambda x: x) = [1]",
        "system.main.lower(split) = 'val'",
        "split.lower() = 'val'",
        "split COLLATE NOCASE = 'VAL'",
    ],
)
def test_refuses_anything_but_a_condition(store, attack):
    with pytest.raises(UsageError, match=r"^`where`"):
        store.where(attack)


@pytest.mark.parametrize(
    "bomb",
    [
        "length(repeat('x', 4000000000)) > 0",
        "list_sum(range(10000000000)) > 0",
        "length(lpad('x', 2000000000, 'y')) > 0",
        "replace(replace(split, 'a', 'aaaaaaaaaa'), 'a', 'aaaaaaaaaa') = ''",
        "format('{:>1000000000}', 'x') = ''",
        "(SELECT count(*) FROM range(1000000000000)) > 0",
        "regexp_matches(split, '((a{1,100}){1,100}){1,100}')",
        "true" + " and true" * 5_000,
        "not " * 2_000 + "true",
        "(" * 4_900 + "true" + ")" * 4_900,
        "1" + "+1" * 3_000 + " > 0",
    ],
)
def test_refuses_conditions_that_exhaust_memory_or_time(store, bomb):
    with pytest.raises(UsageError, match=r"^`where`"):
        store.where(bomb)


def test_a_condition_that_takes_too_long_is_stopped(store):
    with pytest.raises(UsageError, match="took longer than 0 s"):
        select_images(store.snapshot, "width > 1", timeout_s=0.0)


def test_running_work_is_stopped_too():
    """Inside one batch the engine itself is interrupted."""
    with filters._database() as database:
        with (
            pytest.raises(UsageError, match="took longer than"),
            filters._time_limit(database, 0.1),
        ):
            database.execute("SELECT count(*) FROM range(1000000000000)").fetchall()
        assert database.execute("SELECT 1").fetchall() == [(1,)]


def test_conditions_read_no_file_even_without_the_first_check(tmp_path):
    """The engine itself refuses files, extensions and changes of its settings."""
    (tmp_path / "secret.csv").write_text("a\n1\n")
    images = pa.table({"a": [1]})  # a Python variable that a query could name
    with filters._database() as database:
        for statement in (
            f"SELECT * FROM read_csv('{tmp_path}/secret.csv')",  # noqa: S608 - our own path
            f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
            f"ATTACH '{tmp_path}/other.db'",
            "INSTALL httpfs",
            "SET enable_external_access = true",
            "SET memory_limit = '100GB'",
            "SELECT * FROM images",
        ):
            with pytest.raises(duckdb.Error):
                database.execute(statement).fetchall()
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert images.num_rows == 1


def test_an_unknown_column_lists_the_nearest_name_and_all_others(store):
    with pytest.raises(UsageError, match="no column 'widht'; did you mean width") as error:
        store.where("widht > 3")
    assert error.value.hint == (
        "columns: image_id, key, source, uri, split, width, height, format, size_bytes, "
        "licence, score, public"
    )


def test_text_in_double_quotes_is_explained(store):
    with pytest.raises(UsageError, match=r"no column 'zebra' .*'single quotes'"):
        store.where('split = "zebra"')


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "   ",
        "width >",
        "width = 'wide'",
        "lower(width, 2) = 'a'",
        "split + 1 > 2",
        "half \ud83d",
    ],
)
def test_invalid_conditions_and_failures_on_values_are_usage_errors(store, expression):
    with pytest.raises(UsageError, match=r"^`where`") as error:
        store.where(expression)
    assert "\n" not in error.value.message


def test_an_empty_corpus_still_refuses_a_wrong_type(tmp_path):
    snapshot = make_store(tmp_path / "s", images_table([]), captions_table([]), {}, None)
    assert select_images(snapshot, "width > 1").tolist() == []
    with pytest.raises(UsageError, match=r"^`where`"):
        select_images(snapshot, "lower(width, 2) = 'a'")


def test_files_are_not_touched(store, tmp_path, monkeypatch):
    """Nothing is written into the current folder or the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    store.where("width > 1")
    assert list(tmp_path.iterdir()) == []
