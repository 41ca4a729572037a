"""Collection takes what nobody needs, never what somebody may; it needs no free space."""

import math
import os
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta

import pytest

from mmindex.errors import BusyError, DataError, StorageError, UsageError
from mmindex.store import publish, versions
from mmindex.store.check import check
from mmindex.store.collect import Retention, collect, plan
from mmindex.store.holds import hold_current
from mmindex.store.leftovers import remove_below_floor, remove_leftovers
from mmindex.store.lock import writer_lock
from mmindex.store.objects import Objects
from support.kept import NOW, own, publish_days_ago, reader, snapshot, write

STRICT = Retention(keep_versions=1, keep_days=0)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


def run(root, retention=STRICT, now=NOW, spare=lambda _path: False, **options):
    return collect(versions.open_layout(root), retention, now=now, spare=spare, **options)


def numbers(root):
    return versions.list_versions(versions.open_layout(root))


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
def test_the_newest_and_the_young_stay(retention, ages, stay, root):
    made = publish_days_ago(root, *ages)
    reasons = plan({m.version: m.created_at for m in made}, made[-1], retention, NOW)
    assert tuple(number for number, found in reasons.items() if found) == stay
    report = run(root, retention)
    assert numbers(root) == list(stay)
    assert tuple(kept.version for kept in report.kept) == stay
    assert "published" in report.kept[-1].reasons
    assert check(versions.open_layout(root), full=True).problems == ()


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
def test_a_date_without_a_zone_is_utc_and_one_that_is_none_keeps_its_version(created_at, root):
    made = publish_days_ago(root, 9, 8)
    reasons = plan({1: created_at, 2: made[1].created_at}, made[1], Retention(1, 7), NOW)
    assert bool(reasons[1]) == (created_at != "2026-01-01")


@pytest.mark.parametrize("wrong", [(0, 7), (3, -1), (3, math.nan)])
def test_nothing_to_keep_is_refused(wrong):
    with pytest.raises(UsageError, match="cannot keep"):
        Retention(*wrong)


def test_what_is_shared_stays_and_all_that_goes_is_counted(root):
    made = publish_days_ago(root, 9, 8, 7)
    layout = versions.open_layout(root)
    going = [own(layout, made[0]), own(layout, made[1]), layout.version(1), layout.version(2)]
    size = sum(path.stat().st_size for path in going)
    report = run(root)
    assert (report.removed, report.objects, report.bytes_freed) == ((1, 2), 2, size)
    assert not any(path.exists() for path in going)
    assert layout.object(made[2].find("index/all").sha256).exists()


def test_a_dry_run_says_the_same_and_changes_nothing(root):
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
        assert check(versions.open_layout(root), full=True).problems == ()
        process.kill()
        process.wait()
        assert run(root).removed == (1,)
    assert own(versions.open_layout(root), made[-1]).exists()


def test_only_shards_that_can_be_taken_up_stay_while_they_are_young(root):
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


def test_what_a_removed_version_listed_is_never_spared(root):
    """Its shards may hold what was forgotten, and nobody was killed while making them."""
    made = publish_days_ago(root, 9, 8)
    layout = versions.open_layout(root)
    run(root, Retention(1, 7), spare=lambda _path: True)
    assert not own(layout, made[0]).exists()


def test_strangers_files_stay(root):
    publish_days_ago(root, 0)
    layout = versions.open_layout(root)
    strange = [layout.objects_dir / "README", layout.objects_dir / "ab" / "notes.txt"]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert run(root).objects == 0
    assert all(path.exists() for path in strange)


def test_the_newest_hundred_run_reports_stay(root):
    publish_days_ago(root, 0)
    layout = versions.open_layout(root)
    names = [f"2026010{day}T000000-{number:08x}" for day in (1, 2) for number in range(60)]
    for name in names:
        layout.run(name).write_text("{}")
    assert run(root).reports == 20
    assert sorted(path.stem for path in layout.runs_dir.iterdir()) == names[20:]


def test_a_damaged_version_that_stays_stops_collection_before_anything_is_removed(root):
    publish_days_ago(root, 9, 8, 7)
    layout = versions.open_layout(root)
    layout.version(2).write_bytes(b"{")
    before = snapshot(root)
    with pytest.raises(DataError, match=r"0002\.json: not a manifest") as caught:
        run(root)
    assert "check --repair" in caught.value.hint
    assert snapshot(root) == before


def test_a_damaged_current_stops_collection_and_every_writer(root):
    publish_days_ago(root, 9, 8)
    layout = versions.open_layout(root)
    for damage in (b"{", layout.current_file.read_bytes().replace(b'"version":2', b'"version":1')):
        layout.current_file.write_bytes(damage)
        before = snapshot(root)
        for work in (run, lambda root: remove_leftovers(versions.open_layout(root))):
            with pytest.raises(DataError, match="CURRENT"):
                work(root)
        assert snapshot(root) == before


@contextmanager
def stopped_after(monkeypatch, calls):
    """Removing fails from the n-th call on, as if the process had been killed there."""
    really, made = publish.remove_files, []

    def remove(paths):
        made.append(1)
        if len(made) > calls:
            raise StorageError("killed")
        really(paths)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "remove_files", remove)
        yield


@pytest.mark.parametrize("calls", range(3))
def test_killed_anywhere_it_leaves_whole_versions_and_the_next_run_finishes(
    calls, root, monkeypatch
):
    made = publish_days_ago(root, 9, 8, 7)
    layout = versions.open_layout(root)
    with stopped_after(monkeypatch, calls), pytest.raises(StorageError):
        run(root)
    assert check(layout, full=True).problems == ()
    run(root)
    assert numbers(root) == [3]
    assert {path.name for path in layout.objects_dir.rglob("?" * 64)} == {
        ref.sha256 for ref in made[2].objects
    }


def test_below_the_floor_nothing_is_kept_whatever_retention_says(root):
    publish_days_ago(root, 2, 1)
    made = publish_days_ago(root, 0, floor=3)
    layout = versions.open_layout(root)
    layout.version(1).write_bytes(b"damaged: it must go all the same")
    report = run(root, Retention(10, 100))
    assert (report.removed, report.blocked) == ((1, 2), ())
    assert [path for path in layout.objects_dir.rglob("?" * 64) if path.name not in str(made)] == []


def test_below_the_floor_a_reader_is_waited_for_and_named(root):
    publish_days_ago(root, 2)
    layout = versions.open_layout(root)
    with hold_current(layout) as held:
        publish_days_ago(root, 1)
        publish_days_ago(root, 0, floor=3)
        report = run(root, Retention(10, 100))
        assert (report.removed, report.blocked) == ((2,), (1,))
        assert own(layout, held).exists()
        assert remove_below_floor(layout) == (1,)
        found = check(layout, full=True)
        assert (found.problems, found.pending) == ((), (1,))
    remove_leftovers(layout)
    assert numbers(root) == [3]
    assert not own(layout, held).exists()


@pytest.mark.parametrize("calls", [1, 2])
def test_every_writer_finishes_what_was_interrupted_below_the_floor(calls, root, monkeypatch):
    """Objects go before the manifests: as long as a manifest is there, something is left to do."""
    old = publish_days_ago(root, 2, 1)
    publish_days_ago(root, 0, floor=3)
    layout = versions.open_layout(root)
    with stopped_after(monkeypatch, calls), pytest.raises(StorageError):
        remove_leftovers(layout)
    assert numbers(root) == [1, 2, 3]
    assert check(layout, full=True).problems == ()
    remove_leftovers(layout)
    assert numbers(root) == [3]
    assert not any(own(layout, made).exists() for made in old)


def test_two_collections_at_once_are_one_and_a_busy_error(root):
    publish_days_ago(root, 1)
    layout = versions.open_layout(root)
    with writer_lock(layout), pytest.raises(BusyError), writer_lock(layout):
        run(root)


_GC = """
import resource, sys
from pathlib import Path
from mmindex.store.collect import Retention
from mmindex.upkeep import gc
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file may grow by a single byte
print(gc(Path(sys.argv[1]), Retention(1, 0)).removed)
"""


def gc_in_a_process(root, how):
    return subprocess.run(
        [sys.executable, "-c", _GC, str(root), how], capture_output=True, text=True
    )


def test_years_of_versions_can_go_at_once(root):
    """Each lock is an open file, and a process may have few."""
    publish_days_ago(root, *range(300, 0, -1))
    script = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (128, 4096))\n{_GC}"
    done = subprocess.run(
        [sys.executable, "-c", script, str(root), "few"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert numbers(root) == [300]


@pytest.mark.parametrize("note", ["", "4242\n", "of a longer process id 123456789012"])
def test_it_works_where_no_file_can_grow_by_a_byte(note, root):
    publish_days_ago(root, 3, 2, 1)
    (root / "LOCK").write_text(note)
    done = gc_in_a_process(root, "limit")
    assert done.stdout == "(1, 2)\n", done.stderr
    assert numbers(root) == [3]


def test_it_works_on_a_disk_that_is_full_to_the_last_byte(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        root = disk / "store"
        publish_days_ago(root, 3, 2, 1)
        with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        layout = versions.open_layout(root)
        with pytest.raises(StorageError):
            write(Objects(layout), "index/x", bytes(8192))
        done = gc_in_a_process(root, "full")
        assert done.stdout == "(1, 2)\n", done.stderr
        assert check(layout, full=True).problems == ()
        assert os.statvfs(disk).f_bavail > 0
    finally:
        subprocess.run(["umount", disk], check=True)


def test_where_nothing_was_ever_published_only_rubbish_goes(root):
    layout = versions.create_layout(root)
    path = layout.object(write(Objects(layout), "embeddings/x", b"x").sha256)
    layout.version(1).write_bytes(b"never committed")
    report = run(root, Retention(), spare=lambda _path: True, now=NOW - timedelta(days=1))
    assert report.kept == ()
    assert path.exists()
