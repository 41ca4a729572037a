"""A check finds every damage and names the file; a repair mends what can be mended."""

import json
import random
import re
import shutil

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from mmindex import upkeep
from mmindex.errors import (
    DataError,
    MmindexError,
    ModelMismatchError,
    NoInputError,
    UsageError,
)
from mmindex.search.golden import check_golden
from mmindex.store import publish, versions
from mmindex.store.check import check, in_part
from mmindex.store.holds import hold_current
from mmindex.store.objects import Objects
from mmindex.store.repair import repair
from support.fakestore import fast_folder, run_build, truncated_jpeg, write_photos
from support.kept import own, publish_days_ago, reader, snapshot
from support.stores import Side, captions_table, images_table, key_of, make_store

FLIPS_EACH = 12


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Three real builds: a picture more each time, one that cannot be decoded."""
    folder = tmp_path_factory.mktemp("built")
    for count in (6, 7, 8):
        pictures = {f"{number}.jpg": number for number in range(count)}
        write_photos(folder / "photos", pictures, broken={"bad.jpg": truncated_jpeg(99)})
        run_build(folder / "store", folder / "photos")
    return folder / "store"


@pytest.fixture
def root(built):
    """A copy that a test may damage."""
    with fast_folder() as folder:
        shutil.copytree(built, folder / "store")
        yield folder / "store"


def problems(root, **options):
    return check(versions.open_layout(root), full=True, **options).problems


def test_a_sound_store_has_no_problems_and_all_of_it_was_read(root):
    report = upkeep.check(root, full=True)
    assert report.problems == ()
    assert report.versions == 3
    assert report.hashed == report.objects > 20
    assert (report.unlisted, report.pending) == (0, ())
    assert check_golden(versions.open_layout(root)) == ()
    quick = upkeep.check(root, full=False)
    assert (quick.hashed, quick.bytes) == (0, report.bytes)


def test_objects_of_no_version_are_counted_and_no_problem(root):
    publish.write_file(versions.open_layout(root), root / "objects" / "ab" / ("ab" * 32), b"xyz")
    report = check(versions.open_layout(root), full=True)
    assert (report.problems, report.unlisted, report.unlisted_bytes) == ((), 1, 3)


def kinds(root):
    """One file of every kind that a check must know, by the kind's name."""
    layout = versions.open_layout(root)
    current = versions.read_current(layout)
    found = {
        "CURRENT": layout.current_file,
        "newest manifest": layout.version(3),
        "middle manifest": layout.version(2),
        "oldest manifest": layout.version(1),
    }
    return found | {ref.name: layout.object(ref.sha256) for ref in current.objects}


def test_every_flipped_bit_is_found_and_its_file_is_named(root):
    chance = random.Random(7)
    for kind, path in kinds(root).items():
        whole = path.read_bytes()
        for _ in range(FLIPS_EACH):
            place, bit = chance.randrange(len(whole)), chance.randrange(8)
            data = bytearray(whole)
            data[place] ^= 1 << bit
            path.write_bytes(data)
            found = problems(root)
            assert any(str(path) in line for line in found), (kind, place, bit, found)
        path.write_bytes(whole)
    assert problems(root) == ()


def test_every_bit_of_current_counts(root):
    layout = versions.open_layout(root)
    whole = layout.current_file.read_bytes()
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        layout.current_file.write_bytes(data)
        with pytest.raises(DataError, match="CURRENT"):
            versions.read_current(layout)


@pytest.mark.parametrize("size", ["gone", "empty", "short", "long"])
def test_without_hashing_presence_and_size_are_checked(size, root):
    for kind, path in kinds(root).items():
        whole = path.read_bytes()
        if size == "gone":
            path.unlink()
        else:
            data = {"empty": b"", "short": whole[:-2], "long": whole + b"\0"}[size]
            path.write_bytes(data)
        found = check(versions.open_layout(root), full=False).problems
        gone_manifest = size == "gone" and kind in ("middle manifest", "oldest manifest")
        assert gone_manifest or any(str(path) in line for line in found), (kind, found)
        path.write_bytes(whole)


def test_a_format_that_is_damaged_or_lost_is_said_and_repaired(root):
    path = root / "FORMAT"
    for damage in (b"\xb1\n", b"1\x0b", b"", None):
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage)
        for opening in (versions.open_layout, versions.create_layout):
            with pytest.raises(DataError, match=r"FORMAT: (damaged|missing)"):
                opening(root)
        assert upkeep.repair(root).version == 3
        assert path.read_bytes() == b"1\n"
    path.write_bytes(b"9\n")
    with pytest.raises(ModelMismatchError, match="store format 9"):
        upkeep.repair(root)
    assert path.read_bytes() == b"9\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [("quarantine.jsonl", b'{"id": "x"'), ("runs/r.json", b"{"), ("runs/s.json", b"[1]")],
)
def test_ledger_and_reports_that_cannot_be_read_are_named(name, data, root):
    (root / name).write_bytes(data)
    assert any(name in line for line in problems(root))


def test_a_manifest_above_current_was_never_committed_and_is_no_problem(root):
    layout = versions.open_layout(root)
    layout.version(4).write_bytes(b"{")
    report = check(layout, full=True)
    assert (report.problems, report.versions) == ((), 3)


def test_a_version_whose_child_is_gone_is_still_read(root):
    layout = versions.open_layout(root)
    layout.version(2).unlink()
    assert check(layout, full=True).versions == 2
    layout.version(1).write_bytes(b"{")
    assert "not a manifest" in problems(root)[0]


def test_parts_cover_everything_and_each_finds_the_damage_that_is_its_own(root):
    layout = versions.open_layout(root)
    hashed = [check(layout, full=False, subset=(i, 5)).hashed for i in range(1, 6)]
    assert sum(hashed) == check(layout, full=True).hashed
    for path in kinds(root).values():
        if path.parent.parent.name != "objects":
            continue
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        found = [bool(check(layout, full=False, subset=(i, 5)).problems) for i in range(1, 6)]
        assert found == [in_part(path.name, i, 5) for i in range(1, 6)]
        path.write_bytes(whole)


@pytest.mark.parametrize("part", [(0, 7), (8, 7), (1, 0), (-1, 2)])
def test_a_part_that_is_none_is_refused(part, root):
    with pytest.raises(UsageError, match="no part"):
        check(versions.open_layout(root), full=False, subset=part)


def test_versions_collected_during_a_check_are_passed_over(root, monkeypatch):
    layout = versions.open_layout(root)
    numbers = versions.list_versions(layout)
    monkeypatch.setattr(versions, "list_versions", lambda _layout: numbers)
    layout.version(1).unlink()
    assert problems(root) == ()


def test_current_is_held_for_as_long_as_it_is_checked(tmp_path):
    publish_days_ago(tmp_path, 1)
    with reader(tmp_path), hold_current(versions.open_layout(tmp_path)):
        assert check(versions.open_layout(tmp_path), full=True).problems == ()


# --- what hashes cannot see: objects that were written wrong ---


def small(root, **changes):
    """A store of two pictures; ``changes`` replace parts of what is written."""
    keys = [key_of("a"), key_of("b")]
    vectors = changes.get("vectors", np.eye(2, 8, dtype=np.float32))
    side = Side(changes.get("ids", keys), vectors)
    images = images_table([("a", keys[0], "/a"), ("b", keys[1], "/b")])
    objects, made = make_store(root, images, captions_table([]), {"image": side}, None)
    if "edit" in changes:
        made = changes["edit"](objects, msgspec.structs.replace(made, version=2, parent=1))
        versions.publish_version(objects, made)
    return check(objects.layout, full=True).problems


def test_a_small_sound_store_has_no_problems(tmp_path):
    assert small(tmp_path) == ()


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
        ({"ids": [key_of("a"), key_of("c")]}, "not those of the table images"),
        ({"ids": [key_of("a"), key_of("a")]}, "two ids have the same key"),
        ({"ids": ["a", "b"]}, "non-hexadecimal|not a sha256"),
        ({"ids": [key_of("a"), None]}, "not those of the removed rows"),
        ({"vectors": np.full((2, 8), np.nan, np.float32)}, "2 vectors are not finite"),
        ({"edit": _golden}, "golden answers name ids that are not there"),
        ({"edit": _rows}, "ids/image: 2 rows, the manifest says 3"),
        ({"edit": _no_ids}, "lists no ids"),
        ({"edit": _one_vector_more}, "2 rows, 2 of them live; the index has 3"),
        ({"edit": _counts}, "2 rows in images, the counts say 3"),
    ],
)
def test_what_does_not_fit_together_is_said(changes, words, tmp_path):
    found = small(tmp_path, **changes)
    assert any(re.search(words, line) for line in found), found


# --- repair ---


def test_a_sound_store_is_left_as_it_is(root):
    before = snapshot(root)
    report = upkeep.repair(root)
    assert (report.version, report.moved, report.dropped) == (3, False, ())
    assert snapshot(root) == before


def test_damaged_old_versions_are_dropped_and_named(tmp_path):
    made = publish_days_ago(tmp_path, 4, 3, 2, 1)
    layout = versions.open_layout(tmp_path)
    layout.version(1).write_bytes(b"{")
    own(layout, made[1]).write_bytes(b"x")
    report = upkeep.repair(tmp_path)
    assert (report.version, report.moved) == (4, False)
    assert {drop.version: drop.held for drop in report.dropped} == {1: False, 2: False}
    assert "not the one that version 2 recorded" in report.dropped[1].why
    assert versions.list_versions(layout) == [3, 4]
    assert check(layout, full=True).problems == ()


def test_a_damaged_object_that_the_published_version_lists_drops_nothing(tmp_path):
    """The next build makes it again, for all versions that list it."""
    made = publish_days_ago(tmp_path, 3, 2, 1)
    layout = versions.open_layout(tmp_path)
    layout.object(made[0].find("index/all").sha256).write_bytes(b"sharee")
    assert upkeep.repair(tmp_path).dropped == ()
    assert len(check(layout, full=True).problems) == 1


def test_a_damaged_version_that_is_being_read_is_dropped_when_its_reader_has_ended(tmp_path):
    [first] = publish_days_ago(tmp_path, 3)
    layout = versions.open_layout(tmp_path)
    with hold_current(layout):
        publish_days_ago(tmp_path, 2)
        own(layout, first).write_bytes(b"x")
        [drop] = upkeep.repair(tmp_path).dropped
        assert (drop.version, drop.held) == (1, True)
        assert versions.list_versions(layout) == [1, 2]
    assert not upkeep.repair(tmp_path).dropped[0].held


def test_current_is_written_anew_from_the_version_that_it_still_tells(tmp_path):
    """A flipped digit: the sha256 tells which version was meant."""
    publish_days_ago(tmp_path, 3, 2, 1)
    layout = versions.open_layout(tmp_path)
    whole = layout.current_file.read_bytes()
    layout.current_file.write_bytes(whole.replace(b'"version":3', b'"version":2'))
    report = repair(layout)
    assert (report.version, report.moved) == (3, True)
    assert layout.current_file.read_bytes() == whole


def test_where_no_version_is_whole_the_newest_that_can_be_read_is_published(tmp_path):
    """Its damaged objects are then told by the check, and made again by a build."""
    made = publish_days_ago(tmp_path, 2, 1)
    layout = versions.open_layout(tmp_path)
    for version in made:
        own(layout, version).unlink()
    layout.current_file.unlink()
    report = repair(layout)
    assert (report.version, report.moved) == (2, True)
    assert [drop.version for drop in report.dropped] == [1]


def test_a_version_below_the_floor_is_never_published_again(tmp_path):
    publish_days_ago(tmp_path, 3, 2)
    [newest] = publish_days_ago(tmp_path, 1, floor=3)
    layout = versions.open_layout(tmp_path)
    own(layout, newest).unlink()
    layout.current_file.unlink()
    assert repair(layout).version == 3


def test_where_no_version_can_be_read_that_is_said(tmp_path):
    publish_days_ago(tmp_path, 1)
    layout = versions.open_layout(tmp_path)
    layout.version(1).write_bytes(b"{")
    with pytest.raises(NoInputError, match="no version can be read"):
        repair(layout)


def test_a_store_that_never_published_needs_no_repair(tmp_path):
    versions.create_layout(tmp_path / "store")
    assert upkeep.repair(tmp_path / "store").version == 0
    with pytest.raises(MmindexError, match="no mmindex store"):
        upkeep.repair(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "kind",
    [
        "crawl/images", "images", "captions", "quarantine", "embeddings/image/00000", "ids/image",
        "vectors/image/00000", "digests/text/00000", "golden/text",
    ],
)  # fmt: skip
def test_a_build_makes_damaged_objects_of_the_published_version_again(kind, built, tmp_path):
    """Also where nothing has changed. Old versions that are damaged still are dropped then."""
    shutil.copytree(built, tmp_path / "store")
    shutil.copytree(built.parent / "photos", tmp_path / "photos")
    layout = versions.open_layout(tmp_path / "store")
    ref = versions.read_current(layout).find(kind)
    layout.object(ref.sha256).write_bytes(bytes(ref.bytes))
    assert problems(tmp_path / "store") != ()
    run_build(tmp_path / "store", built.parent / "photos")
    current = versions.read_current(layout)
    objects = Objects(layout)
    for listed in current.objects:
        objects.path(listed)
    upkeep.repair(tmp_path / "store")
    assert problems(tmp_path / "store") == ()
    assert json.loads(layout.current_file.read_bytes())["version"] >= 3
