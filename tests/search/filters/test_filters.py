"""`--where`: the selected rows, and answers that equal those of brute force."""

from __future__ import annotations

import random
from collections.abc import Iterator

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from mmindex.core.config import IndexConfig
from mmindex.core.errors import UsageError
from mmindex.core.modality import Modality
from mmindex.search import searcher as searchers
from mmindex.search.condition import FUNCTIONS, MAX_CHARACTERS
from mmindex.search.filters import _DISTANCE_KM, ids_of, select_images
from mmindex.search.searcher import Searcher
from mmindex.store.objects import Objects
from support.filtering import ROWS, Store, random_condition, units
from support.index_stores import indexed
from support.stores import captions_table, images_table, key_of, make_store, with_manifest


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


def test_every_listed_function_exists_in_duckdb():
    """A name that this DuckDB does not know would be offered in vain."""
    with duckdb.connect() as database:
        database.execute(_DISTANCE_KM)
        rows = database.execute("SELECT DISTINCT function_name FROM duckdb_functions()").fetchall()
    assert FUNCTIONS - {name for (name,) in rows} <= {"if", "position", "nullif"}


def test_the_longest_condition_allowed_is_answered(store):
    names = ", ".join(f"'{n:04d}'" for n in range(1_200))
    expression = f"split in ({names}) or width = 640"
    assert len(expression) < MAX_CHARACTERS
    assert store.where(expression) == store.where("width = 640")
    with pytest.raises(UsageError, match="the limit is 10,000"):
        store.where(expression + " " * MAX_CHARACTERS)


def test_columns_whose_names_differ_only_in_case_are_distinguished(tmp_path):
    images = images_table([("a", key_of("a"), "/a"), ("b", key_of("b"), "/b")])
    images = images.append_column("Title", [["x", "y"]]).append_column("title", [["y", "x"]])
    snapshot = make_store(tmp_path / "s", images, captions_table([]), {}, None)
    assert select_images(snapshot, "title = 'x'").tolist() == [False, True]
    assert select_images(snapshot, "\"Title\" = 'x'").tolist() == [True, False]
    with pytest.raises(UsageError, match="no column 'TITLE'"):
        select_images(snapshot, "TITLE = 'x'")


def test_text_that_is_not_utf8_is_seen_with_a_replacement_character(tmp_path):
    images = images_table([("a", key_of("a"), "/a"), ("b", key_of("b"), "/b")])
    titles = pa.array([b"half \xed\xa0\xbd face", None], pa.binary()).cast(pa.string(), safe=False)
    images = images.append_column("title", titles)
    snapshot = make_store(tmp_path / "s", images, captions_table([]), {}, None)
    assert select_images(snapshot, "upper(title) like 'HALF%FACE'").tolist() == [
        True,
        False,
    ]
    assert select_images(snapshot, "title is null").tolist() == [False, True]


@pytest.fixture(scope="module", params=["exact", "ivfflat", "ivfpq", "through the selector"])
def searcher(request: pytest.FixtureRequest, store: Store, tmp_path_factory) -> Iterator[Searcher]:
    """The store's images by every way to search them; a selector takes over above 40 survivors.

    Through the selector all lists are probed: what may be lost then is lost by the selector.
    """
    if request.param == "exact":
        yield Searcher(store.snapshot, "image", threads=1)
        return
    selected = request.param == "through the selector"
    config = IndexConfig(kind="ivfflat" if selected else request.param, threads=1)
    half = store.vectors.astype(np.float16)
    snapshot = indexed(tmp_path_factory.mktemp("ivf"), half, config)
    with pytest.MonkeyPatch.context() as patch:
        if selected:
            patch.setattr(searchers, "_SCAN_UP_TO", 40)
            info = snapshot.manifest.indexes["image"]
            info = msgspec.structs.replace(info, nprobe=info.n, k_factor=1)
            snapshot = with_manifest(snapshot, indexes={"image": info})
            scans = []
            plain = Searcher._scan
            patch.setattr(Searcher, "_scan", lambda *given: scans.append(given[3]) or plain(*given))
        yield Searcher(snapshot, "image", threads=1)
        # The other survivors were the selector's.
        assert not selected or all(len(allowed) <= 40 for allowed in scans)


@pytest.mark.slow
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
        rows = select_images(store.snapshot, expression)
        expected = [says(row) is True for row in store.rows]
        assert rows.tolist() == expected, expression
        allowed = sorted(
            {place[key] for key, kept in zip(store.keys, expected, strict=True) if kept}
        )
        ids = ids_of(store.snapshot, Modality.IMAGE, rows)
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
    rows = select_images(store.snapshot, "split = 'val' and width = 320")
    wanted = {
        key_of(f"caption {i} of {n % 150}")
        for n, row in enumerate(store.rows)
        if row["split"] == "val" and row["width"] == 320
        for i in (0, 1)
    }
    searcher = Searcher(store.snapshot, "text", threads=1)
    ids = ids_of(store.snapshot, Modality.TEXT, rows)
    assert set(searcher.keys(ids)) == wanted
    assert len(ids) == len(wanted)


def test_a_filter_that_matches_nothing_is_an_empty_answer(store):
    rows = select_images(store.snapshot, "width = 1")
    ids = ids_of(store.snapshot, Modality.IMAGE, rows)
    searcher = Searcher(store.snapshot, "image", threads=1)
    scores, found = searcher.search(units(np.random.default_rng(0), 2), 3, ids)
    assert found.tolist() == [[-1] * 3] * 2
    assert np.isneginf(scores).all()
    assert len(ids) == 0


def test_a_content_with_two_names_survives_under_either(store):
    rows = np.zeros(ROWS, dtype=bool)
    rows[395] = True  # the second name of content 5
    assert ids_of(store.snapshot, Modality.IMAGE, rows).tolist() == [5]


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
