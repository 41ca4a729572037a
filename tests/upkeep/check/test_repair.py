"""A repair fixes what it can, names what it removes, and does not change an intact store."""

import json
import shutil

import pytest

from mmindex.core.errors import DataError, MmindexError, ModelMismatchError, NoInputError
from mmindex.store import versions
from mmindex.store.holds import hold_current
from mmindex.store.objects import Objects
from mmindex.upkeep.check import check
from mmindex.upkeep.repair import repair
from support.checking import problems
from support.fakestore import run_build
from support.kept import own, publish_days_ago, snapshot


def test_a_format_that_is_damaged_or_lost_is_reported_and_repaired(copy):
    path = copy / "FORMAT"
    for damage in (b"\xb1\n", b"1\x0b", b"", None):
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage)
        for opening in (versions.open_layout, versions.create_layout):
            with pytest.raises(DataError, match=r"FORMAT: (damaged|missing)"):
                opening(copy)
        assert repair(copy).version == 3
        assert path.read_bytes() == b"1\n"
    path.write_bytes(b"9\n")
    with pytest.raises(ModelMismatchError, match="store format 9"):
        repair(copy)
    assert path.read_bytes() == b"9\n"


def test_an_intact_store_is_left_as_it_is(copy):
    before = snapshot(copy)
    report = repair(copy)
    assert (report.version, report.moved, report.dropped) == (3, False, ())
    assert snapshot(copy) == before


def test_damaged_old_versions_are_dropped_and_named(tmp_path):
    made = publish_days_ago(tmp_path, 4, 3, 2, 1)
    layout = versions.open_layout(tmp_path)
    layout.version(1).write_bytes(b"{")
    own(layout, made[1]).write_bytes(b"x")
    report = repair(tmp_path)
    assert (report.version, report.moved) == (4, False)
    assert {drop.version: drop.held for drop in report.dropped} == {1: False, 2: False}
    assert "differs from the one that version 2 recorded" in report.dropped[1].why
    assert versions.list_versions(layout) == [3, 4]
    assert check(layout.root, full=True).problems == ()


def test_a_damaged_object_that_the_published_version_lists_drops_nothing(tmp_path):
    """The next build makes it again, for all versions that list it."""
    made = publish_days_ago(tmp_path, 3, 2, 1)
    layout = versions.open_layout(tmp_path)
    layout.object(made[0].find("index/all").sha256).write_bytes(b"sharee")
    assert repair(tmp_path).dropped == ()
    assert len(check(layout.root, full=True).problems) == 1


def test_a_damaged_version_that_is_being_read_is_dropped_when_its_reader_has_ended(tmp_path):
    [first] = publish_days_ago(tmp_path, 3)
    layout = versions.open_layout(tmp_path)
    with hold_current(layout):
        publish_days_ago(tmp_path, 2)
        own(layout, first).write_bytes(b"x")
        [drop] = repair(tmp_path).dropped
        assert (drop.version, drop.held) == (1, True)
        assert versions.list_versions(layout) == [1, 2]
    assert not repair(tmp_path).dropped[0].held


def test_current_is_rewritten_from_the_version_that_it_still_names(tmp_path):
    """A flipped digit: the sha256 tells which version was meant."""
    publish_days_ago(tmp_path, 3, 2, 1)
    layout = versions.open_layout(tmp_path)
    whole = layout.current_file.read_bytes()
    layout.current_file.write_bytes(whole.replace(b'"version":3', b'"version":2'))
    report = repair(layout.root)
    assert (report.version, report.moved) == (3, True)
    assert layout.current_file.read_bytes() == whole


def test_if_no_version_is_intact_the_newest_readable_one_is_published(tmp_path):
    """Its damaged objects are then told by the check, and made again by a build."""
    made = publish_days_ago(tmp_path, 2, 1)
    layout = versions.open_layout(tmp_path)
    for version in made:
        own(layout, version).unlink()
    layout.current_file.unlink()
    report = repair(layout.root)
    assert (report.version, report.moved) == (2, True)
    assert [drop.version for drop in report.dropped] == [1]


def test_a_version_below_the_floor_is_never_published_again(tmp_path):
    publish_days_ago(tmp_path, 3, 2)
    [newest] = publish_days_ago(tmp_path, 1, floor=3)
    layout = versions.open_layout(tmp_path)
    own(layout, newest).unlink()
    layout.current_file.unlink()
    assert repair(layout.root).version == 3


def test_a_store_without_a_readable_version_is_reported(tmp_path):
    publish_days_ago(tmp_path, 1)
    layout = versions.open_layout(tmp_path)
    layout.version(1).write_bytes(b"{")
    with pytest.raises(NoInputError, match="no version can be read"):
        repair(layout.root)


def test_a_store_that_never_published_needs_no_repair(tmp_path):
    versions.create_layout(tmp_path / "store")
    assert repair(tmp_path / "store").version == 0
    with pytest.raises(MmindexError, match="no mmindex store"):
        repair(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "kind",
    [
        "crawl/images", "images", "captions", "quarantine", "embeddings/image/00000", "ids/image",
        "vectors/image/00000", "digests/text/00000", "golden/text",
    ],
)  # fmt: skip
def test_a_build_creates_damaged_objects_of_the_published_version_again(kind, built, tmp_path):
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
    repair(tmp_path / "store")
    assert problems(tmp_path / "store") == ()
    assert json.loads(layout.current_file.read_bytes())["version"] >= 3
