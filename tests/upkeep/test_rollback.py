"""A rollback publishes the content of an old version again; version numbers only increase."""

import msgspec
import pytest

from mmindex.core.errors import BusyError, DataError, NoInputError, UsageError
from mmindex.store import versions
from mmindex.store.forgotten import NOTHING, write_forgotten
from mmindex.store.leftovers import remove_leftovers
from mmindex.store.lock import writer_lock
from mmindex.store.objects import Objects
from mmindex.upkeep.check import check
from mmindex.upkeep.rollback import rollback
from support.kept import own, publish_days_ago, snapshot


def back(root, number=None):
    return rollback(root, number, "test-rollback")


def test_it_publishes_the_old_content_under_the_next_number(root):
    made = publish_days_ago(root, 3, 2, 1)
    again = back(root, 1)
    layout = versions.open_layout(root)
    assert versions.read_current(layout) == again
    assert (again.version, again.parent, again.restored_from) == (4, 3, 1)
    assert again.run_id == "test-rollback"
    assert again.content() == made[0].content()
    assert again.created_at > made[2].created_at
    assert check(layout.root, full=True).problems == ()


def test_by_default_it_goes_one_version_back_and_a_second_time_undoes_it(root):
    made = publish_days_ago(root, 3, 2, 1)
    assert back(root).content() == made[1].content()
    assert back(root).content() == made[2].content()
    assert versions.list_versions(versions.open_layout(root)) == [1, 2, 3, 4, 5]


def test_the_same_content_is_not_published_again(root):
    publish_days_ago(root, 2, 1)
    back(root, 1)
    again = back(root, 1)
    assert (again.version, again.restored_from) == (3, 1)
    assert versions.list_versions(versions.open_layout(root)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (3, UsageError, "is the published version"),
        (4, NoInputError, "version 4 no longer exists"),
        (1, NoInputError, "version 1 contains forgotten items"),
        (None, NoInputError, "there is no version before version 3"),
    ],
)
def test_versions_that_cannot_be_restored_are_named(number, error, words, root):
    publish_days_ago(root, 3, 2)
    publish_days_ago(root, 1, floor=3)
    layout = versions.open_layout(root)
    with writer_lock(layout):
        remove_leftovers(layout)
    before = snapshot(root)
    with pytest.raises(error, match=words):
        back(root, number)
    assert snapshot(root) == before


def test_a_store_without_a_version_is_reported(root):
    versions.create_layout(root)
    with pytest.raises(NoInputError, match="nothing is published"):
        back(root)


def test_a_version_with_a_damaged_object_is_refused_and_nothing_changes(root):
    made = publish_days_ago(root, 3, 2, 1)
    layout = versions.open_layout(root)
    path = own(layout, made[0])
    path.write_bytes(b"7")
    before = snapshot(root)
    with pytest.raises(DataError, match="damaged") as caught:
        back(root, 1)
    assert str(path) in caught.value.message
    assert "mmindex versions" in caught.value.hint
    assert snapshot(root) == before


def test_a_manifest_that_differs_from_the_record_of_its_child_is_refused(root):
    publish_days_ago(root, 3, 2, 1)
    path = versions.open_layout(root).version(1)
    path.write_bytes(path.read_bytes().replace(b'"run_id": "test"', b'"run_id": "tesu"'))
    with pytest.raises(DataError, match="differs from the one that version 2 recorded"):
        back(root, 1)


def test_forgotten_items_stay_forgotten(root):
    """The floor and the list of forgotten items belong to the store, not to a version."""
    publish_days_ago(root, 3)
    publish_days_ago(root, 2, floor=2)
    objects = Objects(versions.open_layout(root))
    current = versions.read_current(objects.layout)
    listed = write_forgotten(objects, NOTHING.including(["one"], [], []))
    versions.publish_version(
        objects,
        msgspec.structs.replace(current, version=3, objects=(*current.objects, listed)),
    )
    again = back(root, 2)
    assert again.floor == 2
    assert again.find("forgotten") == listed


def test_leftovers_of_a_killed_run_are_removed_first(root):
    publish_days_ago(root, 2, 1)
    layout = versions.open_layout(root)
    layout.version(3).write_bytes(b"never committed")
    with writer_lock(layout), pytest.raises(BusyError):
        rollback(root, None, "r")
    assert rollback(root, None, "r").version == 3
    with pytest.raises(NoInputError, match="no mmindex store"):
        rollback(root / "nowhere", None, "r")
