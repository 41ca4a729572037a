"""The report of changes equals a simple comparison of ids and keys."""

import hashlib

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmindex.core.errors import DataError, Terminated
from mmindex.runs.diff import Changes, Delta, Tables, compare
from support.corpora import new_store

IMAGES = pa.schema([(name, pa.string()) for name in ("image_id", "key", "source")])
CAPTIONS = pa.schema([(name, pa.string()) for name in ("caption_id", "key", "image_id")])
ROWS = st.dictionaries(st.text("abcä#/", min_size=1, max_size=4), st.integers(0, 3), max_size=30)


def key(value):
    return hashlib.sha256(str(value).encode()).hexdigest()


def write(objects, images, captions=None, source="folder/a"):
    """Return tables from ``{id: content}``; a caption belongs to the image before its ``#``."""
    captions = captions or {}
    rows = {
        "crawl/images": (IMAGES, [[*images], [*map(key, images.values())], [source] * len(images)]),
        "crawl/captions": (
            CAPTIONS,
            [[*captions], [*map(key, captions.values())], [c.partition("#")[0] for c in captions]],
        ),
    }
    return Tables(
        *(
            objects.write_table(
                name,
                schema,
                [pa.table([pa.array(c, pa.string()) for c in columns], schema=schema)],
            )
            for name, (schema, columns) in rows.items()
        )
    )


def expected(before, after):
    both = before.keys() & after.keys()
    replaced = sum(before[name] != after[name] for name in both)
    return Delta(
        added=len(after.keys() - before.keys()),
        removed=len(before.keys() - after.keys()),
        replaced=replaced,
        unchanged=len(both) - replaced,
    )


@settings(max_examples=60, deadline=None)
@given(before=ROWS, after=ROWS)
def test_counts_are_those_of_a_simple_comparison(tmp_path_factory, before, after):
    objects = new_store(tmp_path_factory.mktemp("store"))
    changes = compare(objects, write(objects, before, before), write(objects, after, after))
    assert changes.images == expected(before, after)
    assert changes.captions == expected(before, after)
    assert changes.any == (before != after)


def test_a_first_crawl_is_all_new(tmp_path):
    objects = new_store(tmp_path)
    after = write(objects, {"a": 1, "b": 2}, {"a#0": 1})
    assert compare(objects, None, after) == Changes(Delta(added=2), Delta(added=1))


def test_sources_that_were_not_read_are_left_out_with_their_captions(tmp_path):
    objects = new_store(tmp_path)
    before = write(objects, {"a": 1, "b": 2}, {"a#0": 1, "b#0": 2}, source="urls/list")
    after = write(objects, {"c": 3}, {"c#0": 3})
    assert compare(objects, before, after, ["urls/list"]) == Changes(Delta(added=1), Delta(added=1))
    assert compare(objects, before, after, ["other"]).images.removed == 2


def test_damage_is_reported_as_damage_and_not_counted(tmp_path):
    objects = new_store(tmp_path)
    before = write(objects, {"a": 1})
    path = objects.layout.object(before.images.sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="damaged"):
        compare(objects, before, write(objects, {"b": 1}))


@pytest.mark.parametrize("kind", [OSError, Terminated, KeyboardInterrupt])
def test_errors_while_duckdb_reads_are_raised_unchanged(tmp_path, monkeypatch, kind):
    """DuckDB reports it only in its message, and with another class."""
    objects = new_store(tmp_path)
    tables = write(objects, {"a": 1}), write(objects, {"b": 1})

    def broken(*_args, **_options):
        raise kind
        yield

    monkeypatch.setattr(objects, "iter_batches", broken)
    with pytest.raises(kind):
        compare(objects, *tables)


def test_nothing_is_left_in_staging(tmp_path):
    objects = new_store(tmp_path)
    many = {f"image {number}": number for number in range(5000)}
    compare(objects, write(objects, many), write(objects, {"a": 1}))
    assert list(objects.layout.staging_dir.iterdir()) == []
