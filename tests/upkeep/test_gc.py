"""gc removes what is not needed, and keeps what may be needed."""

import math
import os
from datetime import timedelta

import pytest

from mmindex.core.errors import UsageError
from mmindex.store import versions
from mmindex.store.holds import hold_current
from mmindex.store.leftovers import remove_below_floor, remove_leftovers
from mmindex.store.objects import Objects
from mmindex.upkeep.check import check
from mmindex.upkeep.gc import Retention, plan
from support.collecting import numbers, run
from support.kept import NOW, own, publish_days_ago, reader, snapshot, write


@pytest.mark.parametrize(
    ("retention", "ages", "stay"),
    [
        (Retention(), (30, 20, 10, 9, 8), (3, 4, 5)),
        (Retention(), (30, 20, 6, 5, 4, 3), (3, 4, 5, 6)),
        (Retention(), (3, 2, 1, 0), (1, 2, 3, 4)),
        (Retention(1, 0), (3, 2, 1), (3,)),
        (Retention(2, 0), (3, 2, 1), (2, 3)),
        (Retention(1, math.inf), (300, 200, 100), (1, 2, 3)),
        (Retention(1, 7), (7, 6.999), (2,)),
    ],
)
def test_the_newest_and_recent_versions_are_kept(retention, ages, stay, root):
    made = publish_days_ago(root, *ages)
    reasons = plan({m.version: m.created_at for m in made}, made[-1], retention, NOW)
    assert tuple(number for number, found in reasons.items() if found) == stay
    report = run(root, retention)
    assert numbers(root) == list(stay)
    assert tuple(kept.version for kept in report.kept) == stay
    assert "published" in report.kept[-1].reasons
    assert check(root, full=True).problems == ()


def test_a_clock_set_back_removes_nothing(root):
    publish_days_ago(root, 30, 20, 10, 9, 8)
    report = run(root, Retention(), now=NOW - timedelta(days=365))
    assert report.removed == ()


def test_a_clock_set_ahead_still_keeps_the_newest(root):
    publish_days_ago(root, 3, 2, 1, 0)
    report = run(root, Retention(), now=NOW + timedelta(days=3650))
    assert report.removed == (1,)
    assert numbers(root) == [2, 3, 4]


@pytest.mark.parametrize("created_at", ["", "yesterday", "2026-01-01"])
def test_a_date_without_a_zone_is_utc_and_an_invalid_one_keeps_its_version(created_at, root):
    made = publish_days_ago(root, 9, 8)
    reasons = plan({1: created_at, 2: made[1].created_at}, made[1], Retention(1, 7), NOW)
    assert bool(reasons[1]) == (created_at != "2026-01-01")


@pytest.mark.parametrize("wrong", [(0, 7), (3, -1), (3, math.nan)])
def test_nothing_to_keep_is_refused(wrong):
    with pytest.raises(UsageError, match="cannot keep"):
        Retention(*wrong)


def test_shared_objects_are_kept_and_removed_ones_counted(root):
    made = publish_days_ago(root, 9, 8, 7)
    layout = versions.open_layout(root)
    going = [own(layout, made[0]), own(layout, made[1]), layout.version(1), layout.version(2)]
    size = sum(path.stat().st_size for path in going)
    report = run(root)
    assert (report.removed, report.objects, report.bytes_freed) == ((1, 2), 2, size)
    assert not any(path.exists() for path in going)
    assert layout.object(made[2].find("index/all").sha256).exists()


def test_a_dry_run_reports_the_same_and_changes_nothing(root):
    publish_days_ago(root, 9, 8, 7)
    write(Objects(versions.open_layout(root)), "index/orphan", b"orphan")
    before = snapshot(root)
    told = run(root, dry_run=True)
    assert snapshot(root) == before
    done = run(root)
    assert told.dry_run
    assert (told.removed, told.objects, told.bytes_freed) == (
        (done.removed, done.objects, done.bytes_freed)
    )  # fmt: skip


def test_a_version_being_read_stays_until_its_reader_dies(root):
    publish_days_ago(root, 30)
    with reader(root) as process:
        made = publish_days_ago(root, 20, 10)
        report = run(root)
        assert report.removed == (2,)
        assert report.kept[0].reasons == ("held by a reader",)
        assert numbers(root) == [1, 3]
        assert check(root, full=True).problems == ()
        process.kill()
        process.wait()
        assert run(root).removed == (1,)
    assert own(versions.open_layout(root), made[-1]).exists()


def test_only_recent_shards_that_can_be_reused_are_kept(root):
    publish_days_ago(root, 0)
    layout = versions.open_layout(root)
    objects = Objects(layout)
    young, old, other = (
        layout.object(write(objects, "embeddings/x", name).sha256) for name in (b"y", b"o", b"z")
    )
    for path, days in ((young, 6), (old, 8), (other, 6)):
        stamp = (NOW - timedelta(days=days)).timestamp()
        os.utime(path, (stamp, stamp))
    report = run(root, Retention(), spare=lambda path: path != other)
    assert (report.spared, report.spared_bytes, report.objects) == (1, 1, 2)
    assert young.exists()
    assert not old.exists()
    assert not other.exists()
    assert run(root, Retention(keep_days=0), spare=lambda _path: True).objects == 1


def test_objects_of_removed_versions_are_never_kept(root):
    """Its shards may contain forgotten items, and no killed build created them."""
    made = publish_days_ago(root, 9, 8)
    layout = versions.open_layout(root)
    run(root, Retention(1, 7), spare=lambda _path: True)
    assert not own(layout, made[0]).exists()


def test_unknown_files_are_kept(root):
    publish_days_ago(root, 0)
    layout = versions.open_layout(root)
    strange = [layout.objects_dir / "README", layout.objects_dir / "ab" / "notes.txt"]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert run(root).objects == 0
    assert all(path.exists() for path in strange)


def test_the_newest_hundred_run_reports_are_kept(root):
    publish_days_ago(root, 0)
    layout = versions.open_layout(root)
    names = [f"2026010{day}T000000-{number:08x}" for day in (1, 2) for number in range(60)]
    for name in names:
        layout.run(name).write_text("{}")
    assert run(root).reports == 20
    assert sorted(path.stem for path in layout.runs_dir.iterdir()) == names[20:]


def test_below_the_floor_nothing_is_kept(root):
    publish_days_ago(root, 2, 1)
    made = publish_days_ago(root, 0, floor=3)
    layout = versions.open_layout(root)
    layout.version(1).write_bytes(b"damaged: it must go all the same")
    report = run(root, Retention(10, 100))
    assert (report.removed, report.blocked) == ((1, 2), ())
    assert [path for path in layout.objects_dir.rglob("?" * 64) if path.name not in str(made)] == []


def test_below_the_floor_a_reader_is_named(root):
    publish_days_ago(root, 2)
    layout = versions.open_layout(root)
    with hold_current(layout) as held:
        publish_days_ago(root, 1)
        publish_days_ago(root, 0, floor=3)
        report = run(root, Retention(10, 100))
        assert (report.removed, report.blocked) == ((2,), (1,))
        assert own(layout, held).exists()
        assert remove_below_floor(layout) == (1,)
        found = check(layout.root, full=True)
        assert (found.problems, found.pending) == ((), (1,))
    remove_leftovers(layout)
    assert numbers(root) == [3]
    assert not own(layout, held).exists()


def test_in_an_unpublished_store_only_leftovers_are_removed(root):
    layout = versions.create_layout(root)
    path = layout.object(write(Objects(layout), "embeddings/x", b"x").sha256)
    layout.version(1).write_bytes(b"never committed")
    report = run(root, Retention(), spare=lambda _path: True, now=NOW - timedelta(days=1))
    assert report.kept == ()
    assert path.exists()
