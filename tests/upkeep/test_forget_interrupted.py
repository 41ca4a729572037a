"""Forgetting completes after kills, waits, damage and unfinished work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmindex.core.errors import BusyError, DataError
from mmindex.runs import run
from mmindex.store import leftovers, purge, versions
from mmindex.store.holds import hold_current
from mmindex.upkeep import forget as forgetting
from mmindex.upkeep.check import check
from mmindex.upkeep.forget import require_removed
from support.corpora import jpeg
from support.fakestore import run_build, truncated_jpeg, write_photos
from support.forgetting import (
    ID,
    IMAGES,
    assert_nowhere,
    assert_sound,
    build,
    forget_ids,
    image_ids,
    opened,
    traces_of,
)


def test_a_damaged_old_version_does_not_prevent_forgetting(place: Path) -> None:
    build(place)
    write_photos(place / "photos", IMAGES | {"more.jpg": 30})
    build(place)
    layout, _ = opened(place)
    old = versions.read_version(layout, 1).find("crawl/images")
    assert old is not None
    layout.object(old.sha256).write_bytes(b"PAR1")
    assert forget_ids(place).removed == (1, 2)
    assert_nowhere(place / "store", *traces_of(jpeg(3)))


def test_a_version_in_use_is_removed_by_the_next_writer(place: Path) -> None:
    build(place)
    layout, _ = opened(place)
    with hold_current(layout):
        report = forget_ids(place)
        assert report.held == (1,)
        with pytest.raises(BusyError, match="still holds version 1"):
            require_removed(report)
        assert check(layout.root, full=True).problems == ()
    build(place)
    assert versions.list_versions(layout) == [2]
    assert_nowhere(place / "store", *traces_of(jpeg(3))[1:])


class Killed(BaseException):
    """Simulates a kill: nothing except the kernel cleans up."""


STEPS = [
    (versions, "point_current_at"),
    (forgetting, "remove_below_floor"),
    (leftovers, "lock_versions"),
    (purge, "purge"),
    (purge, "purge_stamps"),
    (purge, "write_ledger"),
    (purge, "_remove_unlisted"),
]


@pytest.mark.parametrize(("module", "name"), STEPS, ids=[name for _, name in STEPS])
def test_after_a_kill_between_steps_the_next_run_completes_it(
    place: Path, module: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(place / "photos", IMAGES, broken={"bad.jpg": truncated_jpeg(40)})
    build(place)

    def die(*_: object, **__: object) -> None:
        raise Killed

    wanted = [ID, "folder/photos/bad.jpg"]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, die)
        with pytest.raises(Killed):
            forget_ids(place, *wanted)
    layout, manifest = opened(place)
    assert check(layout.root, full=True).problems == ()
    if manifest.version == 1:
        assert ID in image_ids(place)
        forget_ids(place, *wanted)
    else:
        build(place)
    assert versions.list_versions(layout) == [2]
    assert_sound(place)
    assert_nowhere(
        place / "store", *traces_of(jpeg(3)), *traces_of(truncated_jpeg(40)), b"p3.jpg", b"bad.jpg"
    )


def test_a_failing_index_leaves_the_store_unchanged(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(place)

    def fail(*_: object, **__: object) -> None:
        raise DataError("no")

    with monkeypatch.context() as patch:
        patch.setattr("mmindex.upkeep.forget_draft.index_stage", fail)
        with pytest.raises(DataError):
            forget_ids(place)
    assert versions.list_versions(opened(place)[0]) == [1]
    assert ID in image_ids(place)
    assert not run_build(place / "store", place / "photos").published


def test_shards_of_a_killed_build_are_removed_too(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(place, wanted=("crawl",))

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("mmindex.runs.stages.drop_failed", die)
        with pytest.raises(Killed):
            build(place)
    forget_ids(place)
    build(place)
    assert_nowhere(place / "store", *traces_of(jpeg(3))[1:])


@pytest.mark.parametrize("wanted", [("crawl",), ("crawl", "encode"), run.STAGES[:3]])
def test_a_store_that_is_not_finished_can_forget(place: Path, wanted: tuple[str, ...]) -> None:
    build(place, wanted=wanted)
    forget_ids(place)
    _, manifest = opened(place)
    assert manifest.stages == wanted
    assert manifest.counts.indexed == 11
    build(place)
    assert_nowhere(place / "store", *traces_of(jpeg(3)), b"p3.jpg")
    assert_sound(place)
