"""A check finds wrong objects whose hashes are right."""

import re

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from mmindex.search.golden import write_golden
from mmindex.store import versions
from mmindex.store.snapshot import Snapshot
from mmindex.upkeep.check import check
from support.stores import Side, captions_table, images_table, key_of, make_store


def small(root, **changes):
    """A store of two images; ``changes`` replace parts of what is written."""
    keys = [key_of("a"), key_of("b")]
    vectors = changes.get("vectors", np.eye(2, 8, dtype=np.float32))
    side = Side(changes.get("ids", keys), vectors)
    images = images_table([("a", keys[0], "/a"), ("b", keys[1], "/b")])
    snapshot = make_store(root, images, captions_table([]), {"image": side}, None)
    if "edit" in changes:
        draft = msgspec.structs.replace(snapshot.manifest, version=2, parent=1)
        made = changes["edit"](snapshot.objects, draft)
        versions.publish_version(snapshot.objects, made)
    return check(root, full=True).problems


def test_a_small_intact_store_has_no_problems(tmp_path):
    assert small(tmp_path, edit=_sound) == ()


def _sound(objects, made):
    golden = write_golden(Snapshot(objects, made), "image", np.eye(2, 8, dtype=np.float32))
    return msgspec.structs.replace(made, objects=(*made.objects, golden))


def _golden(objects, made):
    schema = pa.schema({"ids": pa.list_(pa.int64())})
    table = pa.table({"ids": [[0, 2, -1]]}, schema=schema)
    golden = objects.write_table("golden/image", schema, [table])
    return msgspec.structs.replace(made, objects=(*made.objects, golden))


def _rows(_objects, made):
    refs = [
        msgspec.structs.replace(ref, rows=3) if ref.name == "ids/image" else ref
        for ref in made.objects
    ]
    return msgspec.structs.replace(made, objects=tuple(refs))


def _no_ids(_objects, made):
    refs = tuple(ref for ref in made.objects if ref.name != "ids/image")
    return msgspec.structs.replace(made, objects=refs)


def _one_vector_more(_objects, made):
    info = msgspec.structs.replace(made.indexes["image"], n=3, rows=3)
    return msgspec.structs.replace(made, indexes={"image": info})


def _counts(_objects, made):
    counts = msgspec.structs.replace(made.counts, indexed=3, seen=3)
    return msgspec.structs.replace(made, counts=counts)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": [key_of("a"), key_of("c")]}, "differ from those of the table images"),
        ({"ids": [key_of("a"), key_of("a")]}, "two ids have the same key"),
        ({"ids": ["a", "b"]}, "non-hexadecimal|not a sha256"),
        ({"ids": [key_of("a"), None]}, "differ from the removed rows"),
        ({"vectors": np.full((2, 8), np.nan, np.float32)}, "2 vectors are not finite"),
        ({"edit": _golden}, "golden answers contain ids that do not exist"),
        ({"edit": _rows}, "ids/image: 2 rows, but the manifest states 3"),
        ({"edit": _no_ids}, "the ids do not match the index"),
        ({"edit": _one_vector_more}, "2 rows, 2 of them live; the index has 3"),
        ({"edit": _counts}, "2 rows in images, but the counts state 3"),
    ],
)
def test_mismatched_objects_are_reported(changes, words, tmp_path):
    found = small(tmp_path, **changes)
    assert any(re.search(words, line) for line in found), found
