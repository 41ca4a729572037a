"""A check finds any damage and names the file."""

import random

import pytest

from mmindex.core.errors import DataError, UsageError
from mmindex.search.golden import check_golden
from mmindex.store import publish, versions
from mmindex.store.holds import hold_current
from mmindex.upkeep.check import check, in_part
from support.checking import problems
from support.kept import publish_days_ago, reader

FLIPS_EACH = 12


def test_an_intact_store_has_no_problems_and_all_of_it_was_read(copy):
    report = check(copy, full=True)
    assert report.problems == ()
    assert report.versions == 3
    assert report.hashed == report.objects > 20
    assert (report.unlisted, report.pending) == (0, ())
    assert check_golden(versions.open_layout(copy)) == ()
    quick = check(copy, full=False)
    assert (quick.hashed, quick.bytes) == (0, report.bytes)


def test_objects_of_no_version_are_counted_but_not_a_problem(copy):
    publish.write_file(versions.open_layout(copy), copy / "objects" / "ab" / ("ab" * 32), b"xyz")
    report = check(copy, full=True)
    assert (report.problems, report.unlisted, report.unlisted_bytes) == ((), 1, 3)


def kinds(copy):
    """One file of every kind that a check must know, by the kind's name."""
    layout = versions.open_layout(copy)
    current = versions.read_current(layout)
    found = {
        "CURRENT": layout.current_file,
        "newest manifest": layout.version(3),
        "middle manifest": layout.version(2),
        "oldest manifest": layout.version(1),
    }
    return found | {ref.name: layout.object(ref.sha256) for ref in current.objects}


def test_every_flipped_bit_is_found_and_its_file_is_named(copy):
    chance = random.Random(7)
    for kind, path in kinds(copy).items():
        whole = path.read_bytes()
        for _ in range(FLIPS_EACH):
            place, bit = chance.randrange(len(whole)), chance.randrange(8)
            data = bytearray(whole)
            data[place] ^= 1 << bit
            path.write_bytes(data)
            found = problems(copy)
            assert any(str(path) in line for line in found), (kind, place, bit, found)
        path.write_bytes(whole)
    assert problems(copy) == ()


def test_every_flipped_bit_of_current_is_found(copy):
    layout = versions.open_layout(copy)
    whole = layout.current_file.read_bytes()
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        layout.current_file.write_bytes(data)
        with pytest.raises(DataError, match="CURRENT"):
            versions.read_current(layout)


@pytest.mark.parametrize("size", ["gone", "empty", "short", "long"])
def test_without_hashing_presence_and_size_are_checked(size, copy):
    for kind, path in kinds(copy).items():
        whole = path.read_bytes()
        if size == "gone":
            path.unlink()
        else:
            data = {"empty": b"", "short": whole[:-2], "long": whole + b"\0"}[size]
            path.write_bytes(data)
        found = check(copy, full=False).problems
        gone_manifest = size == "gone" and kind in ("middle manifest", "oldest manifest")
        assert gone_manifest or any(str(path) in line for line in found), (kind, found)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "data"),
    [("quarantine.jsonl", b'{"id": "x"'), ("runs/r.json", b"{"), ("runs/s.json", b"[1]")],
)
def test_ledger_and_reports_that_cannot_be_read_are_named(name, data, copy):
    (copy / name).write_bytes(data)
    assert any(name in line for line in problems(copy))


def test_a_manifest_above_current_was_never_committed_and_is_not_a_problem(copy):
    layout = versions.open_layout(copy)
    layout.version(4).write_bytes(b"{")
    report = check(layout.root, full=True)
    assert (report.problems, report.versions) == ((), 3)


def test_a_version_without_its_child_is_still_read(copy):
    layout = versions.open_layout(copy)
    layout.version(2).unlink()
    assert check(layout.root, full=True).versions == 2
    layout.version(1).write_bytes(b"{")
    assert "not a manifest" in problems(copy)[0]


def test_parts_cover_everything_and_each_finds_its_own_damage(copy):
    hashed = [check(copy, full=False, subset=(i, 5)).hashed for i in range(1, 6)]
    assert sum(hashed) == check(copy, full=True).hashed
    for kind, path in kinds(copy).items():
        if path.parent.parent.name != "objects":
            continue
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        found = [bool(check(copy, full=False, subset=(i, 5)).problems) for i in range(1, 6)]
        # Golden queries find damage in what answers them, whichever part it is in.
        asked = kind.startswith(("vectors", "digests", "index", "golden"))
        assert found == [asked or in_part(path.name, i, 5) for i in range(1, 6)]
        path.write_bytes(whole)


@pytest.mark.parametrize("part", [(0, 7), (8, 7), (1, 0), (-1, 2)])
def test_a_part_that_does_not_exist_is_refused(part, copy):
    with pytest.raises(UsageError, match="no part"):
        check(copy, full=False, subset=part)


def test_versions_collected_during_a_check_are_skipped(copy, monkeypatch):
    layout = versions.open_layout(copy)
    numbers = versions.list_versions(layout)
    monkeypatch.setattr(versions, "list_versions", lambda _layout: numbers)
    layout.version(1).unlink()
    assert problems(copy) == ()


def test_current_is_held_for_as_long_as_it_is_checked(tmp_path):
    publish_days_ago(tmp_path, 1)
    with reader(tmp_path), hold_current(versions.open_layout(tmp_path)):
        assert check(tmp_path, full=True).problems == ()
