"""`--where`: what it keeps, what it refuses, and that answers under it are those of brute force."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from mmindex.config import IndexConfig
from mmindex.errors import UsageError
from mmindex.records import Modality
from mmindex.search import filters
from mmindex.search import searcher as searchers
from mmindex.search.condition import FUNCTIONS, MAX_CHARACTERS
from mmindex.search.filters import ids_of, select_images
from mmindex.search.searcher import Searcher
from mmindex.store.manifest import Manifest
from mmindex.store.objects import Objects
from support.index_stores import indexed
from support.stores import Side, captions_table, images_table, key_of, make_store

ROWS, DIM = 400, 16
LICENCES = ("CC BY 4.0", "CC BY-SA", "no rights", "O'Reilly", None)


@dataclass(frozen=True)
class Store:
    objects: Objects
    manifest: Manifest
    rows: list[dict[str, object]]
    image_ids: list[str]
    keys: list[str]
    vectors: np.ndarray

    def where(self, expression: str) -> list[int]:
        return np.flatnonzero(select_images(self.objects, self.manifest, expression)).tolist()


def units(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.normal(size=(n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def metadata(rng: random.Random, n: int) -> list[dict[str, object]]:
    return [
        {
            "width": rng.choice([320, 480, 640, 1024]),
            "height": rng.choice([240, 480, 640]),
            "split": rng.choice(["train", "val", "test"]),
            "licence": rng.choice(LICENCES),
            "score": rng.choice([None, -1.5, 0.0, 2.25]),
            "public": rng.choice([True, False, None]),
        }
        for _ in range(n)
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """400 image rows of 390 contents (ten stand under two names), two captions each."""
    rng, numbers = random.Random(7), np.random.default_rng(7)
    rows = metadata(rng, ROWS)
    names = [f"folder/test/{n:04d}" for n in range(ROWS)]
    contents = [key_of(f"image {n if n < 390 else n - 390}") for n in range(ROWS)]
    images = images_table(
        [(name, key, f"/p/{name}") for name, key in zip(names, contents, strict=True)]
    )
    for column, kind in (
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("split", pa.string()),
        ("licence", pa.string()),
        ("score", pa.float64()),
        ("public", pa.bool_()),
    ):
        values = pa.array([row[column] for row in rows], kind)
        place = images.schema.get_field_index(column)
        images = (
            images.append_column(column, values)
            if place < 0
            else images.set_column(place, column, values)
        )
    texts = [(name, f"caption {i} of {n % 150}") for n, name in enumerate(names) for i in (0, 1)]
    captions = captions_table(texts)
    unique = list(dict.fromkeys(contents))
    said = list(dict.fromkeys(captions["key"].to_pylist()))
    vectors = units(numbers, len(unique))
    sides = {"image": Side(unique, vectors), "text": Side(said, units(numbers, len(said)))}
    folder = tmp_path_factory.mktemp("filters") / "store"
    objects, manifest = make_store(folder, images, captions, sides, None, group_rows=64)
    return Store(objects, manifest, rows, names, contents, vectors)


@pytest.mark.parametrize(
    ("expression", "keeps"),
    [
        ("width >= 640", lambda r: r["width"] >= 640),
        ("width>=640 and split='val'", lambda r: r["width"] >= 640 and r["split"] == "val"),
        ("licence like '%BY%'", lambda r: "BY" in (r["licence"] or "")),
        ("licence is null or score < 0", lambda r: r["licence"] is None or (r["score"] or 0) < 0),
        ("not public", lambda r: r["public"] is False),
        ("WIDTH > Height", lambda r: r["width"] > r["height"]),
        ('"split" in (\'val\', \'test\') -- a comment', lambda r: r["split"] != "train"),
        ("images.width between 400 and 700", lambda r: 400 <= r["width"] <= 700),
        ("licence = 'O''Reilly'", lambda r: r["licence"] == "O'Reilly"),
        ("case when split = 'val' then width else height end = 640",
         lambda r: (r["width"] if r["split"] == "val" else r["height"]) == 640),
        ("regexp_matches(lower(licence), '^cc by( |-)')",
         lambda r: (r["licence"] or "").startswith("CC BY")),
        ("true", lambda _: True),
        ("width < 0", lambda _: False),
        ("null", lambda _: False),
    ],
)  # fmt: skip
def test_keeps_the_rows_for_which_the_condition_is_true(store, expression, keeps):
    expected = [number for number, row in enumerate(store.rows) if keeps(row)]
    assert store.where(expression) == expected


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
def test_refuses_whatever_is_more_than_a_condition(store, attack):
    with pytest.raises(UsageError, match=r"^--where"):
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
def test_refuses_what_would_eat_memory_or_time(store, bomb):
    with pytest.raises(UsageError, match=r"^--where"):
        store.where(bomb)


def test_a_condition_that_takes_too_long_is_stopped(store):
    with pytest.raises(UsageError, match="took longer than 0 s"):
        select_images(store.objects, store.manifest, "width > 1", timeout_s=0.0)


def test_work_is_stopped_in_the_middle_too():
    """Inside one batch the engine itself is interrupted."""
    with filters._database() as database:
        with (
            pytest.raises(UsageError, match="took longer than"),
            filters._time_limit(database, 0.1),
        ):
            database.execute("SELECT count(*) FROM range(1000000000000)").fetchall()
        assert database.execute("SELECT 1").fetchall() == [(1,)]


def test_conditions_reach_no_file_even_past_the_first_fence(tmp_path):
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


def test_an_unknown_column_gets_the_nearest_name_and_all_the_others(store):
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
def test_what_is_no_condition_or_fails_on_a_value_is_a_usage_error(store, expression):
    with pytest.raises(UsageError, match=r"^--where") as error:
        store.where(expression)
    assert "\n" not in error.value.message


def test_every_listed_function_exists_in_duckdb():
    """A name that this DuckDB does not know would be offered in vain."""
    with duckdb.connect() as database:
        rows = database.execute("SELECT DISTINCT function_name FROM duckdb_functions()").fetchall()
    assert FUNCTIONS - {name for (name,) in rows} <= {"if", "position", "nullif"}


def test_the_longest_condition_allowed_is_answered(store):
    names = ", ".join(f"'{n:04d}'" for n in range(1_200))
    expression = f"split in ({names}) or width = 640"
    assert len(expression) < MAX_CHARACTERS
    assert store.where(expression) == store.where("width = 640")
    with pytest.raises(UsageError, match="the limit is 10,000"):
        store.where(expression + " " * MAX_CHARACTERS)


def test_columns_whose_names_differ_only_in_case_are_told_apart(tmp_path):
    images = images_table([("a", key_of("a"), "/a"), ("b", key_of("b"), "/b")])
    images = images.append_column("Title", [["x", "y"]]).append_column("title", [["y", "x"]])
    objects, manifest = make_store(tmp_path / "s", images, captions_table([]), {}, None)
    assert select_images(objects, manifest, "title = 'x'").tolist() == [False, True]
    assert select_images(objects, manifest, "\"Title\" = 'x'").tolist() == [True, False]
    with pytest.raises(UsageError, match="no column 'TITLE'"):
        select_images(objects, manifest, "TITLE = 'x'")


def test_text_that_is_no_utf8_is_seen_with_a_replacement_character(tmp_path):
    images = images_table([("a", key_of("a"), "/a"), ("b", key_of("b"), "/b")])
    titles = pa.array([b"half \xed\xa0\xbd face", None], pa.binary()).cast(pa.string(), safe=False)
    images = images.append_column("title", titles)
    objects, manifest = make_store(tmp_path / "s", images, captions_table([]), {}, None)
    assert select_images(objects, manifest, "upper(title) like 'HALF%FACE'").tolist() == [
        True,
        False,
    ]
    assert select_images(objects, manifest, "title is null").tolist() == [False, True]


def test_an_empty_corpus_still_refuses_a_wrong_type(tmp_path):
    objects, manifest = make_store(tmp_path / "s", images_table([]), captions_table([]), {}, None)
    assert select_images(objects, manifest, "width > 1").tolist() == []
    with pytest.raises(UsageError, match=r"^--where"):
        select_images(objects, manifest, "lower(width, 2) = 'a'")


def random_condition(rng: random.Random, depth: int = 0):
    """SQL, and the same in Python: a function of a row that gives True, False or None (unknown)."""
    if depth < 3 and rng.random() < 0.6:
        kind = rng.choice(["and", "or", "not"])
        left, left_says = random_condition(rng, depth + 1)
        if kind == "not":
            return f"NOT ({left})", lambda r: None if (v := left_says(r)) is None else not v
        right, right_says = random_condition(rng, depth + 1)
        decisive = kind == "or"

        def says(r, a=left_says, b=right_says):
            values = (a(r), b(r))
            if decisive in values:
                return decisive
            return None if None in values else not decisive

        return f"({left}) {kind.upper()} ({right})", says
    return rng.choice([_number, _text, _null, _flag])(rng)


def _number(rng):
    column = rng.choice(["width", "height", "score"])
    value = rng.choice([-1.5, 0, 2.25, 240, 320, 480, 640, 1024])
    sign, compare = rng.choice(
        [(">=", lambda a, b: a >= b), ("<", lambda a, b: a < b), ("=", lambda a, b: a == b)]
    )
    return (
        f"{column} {sign} {value}",
        lambda r: None if r[column] is None else compare(r[column], value),
    )


def _text(rng):
    part = rng.choice(["BY", "CC", "rights", "'", "zz"])
    quoted = part.replace("'", "''")
    return (
        f"licence LIKE '%{quoted}%'",
        lambda r: None if r["licence"] is None else part in r["licence"],
    )


def _null(rng):
    column = rng.choice(["score", "licence", "public"])
    return f"{column} IS NULL", lambda r: r[column] is None


def _flag(_rng):
    return "public", lambda r: r["public"]


@pytest.fixture(scope="module", params=["exact", "ivfflat", "ivfpq", "through the selector"])
def searcher(request: pytest.FixtureRequest, store: Store, tmp_path_factory) -> Iterator[Searcher]:
    """The store's pictures by every way to search them; a selector takes over above 40 survivors.

    Through the selector all lists are probed: what may be lost then is lost by the selector.
    """
    if request.param == "exact":
        yield Searcher(store.objects, store.manifest, "image", threads=1)
        return
    selected = request.param == "through the selector"
    config = IndexConfig(kind="ivfflat" if selected else request.param, threads=1)
    half = store.vectors.astype(np.float16)
    objects, manifest = indexed(tmp_path_factory.mktemp("ivf"), half, config)
    with pytest.MonkeyPatch.context() as patch:
        if selected:
            patch.setattr(searchers, "_SCAN_UP_TO", 40)
            info = manifest.indexes["image"]
            info = msgspec.structs.replace(info, nprobe=info.n, k_factor=1)
            manifest = msgspec.structs.replace(manifest, indexes={"image": info})
            scans = []
            plain = Searcher._scan
            patch.setattr(Searcher, "_scan", lambda *given: scans.append(given[3]) or plain(*given))
        yield Searcher(objects, manifest, "image", threads=1)
        # The other survivors were the selector's.
        assert not selected or all(len(allowed) <= 40 for allowed in scans)


def test_answers_under_200_random_filters_are_those_of_brute_force(
    store: Store, searcher: Searcher
) -> None:
    """Each filter with 20 queries over the images, at every selectivity, in every index form."""
    rng, numbers = random.Random(2026), np.random.default_rng(2026)
    half = store.vectors.astype(np.float16).astype(np.float64)
    place = {key: n for n, key in enumerate(dict.fromkeys(store.keys))}
    shares = []
    for _ in range(200):
        expression, says = random_condition(rng)
        rows = select_images(store.objects, store.manifest, expression)
        expected = [says(row) is True for row in store.rows]
        assert rows.tolist() == expected, expression
        allowed = sorted(
            {place[key] for key, kept in zip(store.keys, expected, strict=True) if kept}
        )
        ids = ids_of(store.objects, store.manifest, Modality.IMAGE, rows)
        assert ids.tolist() == allowed, expression
        queries = units(numbers, 20)
        _, found = searcher.search(queries, 10, ids)
        order = np.argsort(-(queries.astype(np.float64) @ half[allowed].T), axis=1)[:, :10]
        wanted = np.full((20, 10), -1)
        wanted[:, : order.shape[1]] = np.array(allowed, dtype=np.int64)[order]
        assert found.tolist() == wanted.tolist(), expression
        shares.append(len(allowed) / len(place))
    assert min(shares) == 0.0
    assert max(shares) == 1.0
    assert sum(0 < share < 0.1 for share in shares) >= 5


def test_a_filter_over_images_restricts_their_captions(store):
    rows = select_images(store.objects, store.manifest, "split = 'val' and width = 320")
    wanted = {
        key_of(f"caption {i} of {n % 150}")
        for n, row in enumerate(store.rows)
        if row["split"] == "val" and row["width"] == 320
        for i in (0, 1)
    }
    searcher = Searcher(store.objects, store.manifest, "text", threads=1)
    ids = ids_of(store.objects, store.manifest, Modality.TEXT, rows)
    assert set(searcher.keys(ids)) == wanted
    assert len(ids) == len(wanted)


def test_no_survivor_is_an_empty_answer(store):
    rows = select_images(store.objects, store.manifest, "width = 1")
    ids = ids_of(store.objects, store.manifest, Modality.IMAGE, rows)
    searcher = Searcher(store.objects, store.manifest, "image", threads=1)
    scores, found = searcher.search(units(np.random.default_rng(0), 2), 3, ids)
    assert found.tolist() == [[-1] * 3] * 2
    assert np.isneginf(scores).all()
    assert len(ids) == 0


def test_a_content_with_two_names_survives_under_either(store):
    rows = np.zeros(ROWS, dtype=bool)
    rows[395] = True  # the second name of content 5
    assert ids_of(store.objects, store.manifest, Modality.IMAGE, rows).tolist() == [5]


def test_the_condition_reads_only_the_columns_that_it_names(store, monkeypatch):
    asked: list[list[str]] = []
    real = Objects.open_parquet

    def spy(self, ref):
        file = real(self, ref)
        batches = file.iter_batches

        def watched(*args, **kwargs):
            asked.append(kwargs["columns"])
            return batches(*args, **kwargs)

        file.iter_batches = watched
        return file

    monkeypatch.setattr(Objects, "open_parquet", spy)
    store.where("width > 1 and licence is not null")
    assert [sorted(columns) for columns in asked] == [["licence", "width"]]


def test_files_are_left_alone(store, tmp_path, monkeypatch):
    """Nothing is written into the current folder or the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    store.where("width > 1")
    assert list(tmp_path.iterdir()) == []
