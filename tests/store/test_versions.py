"""A version is published completely or not at all, and damage is always detected."""

import json
import stat
from pathlib import Path

import msgspec
import pytest

from mmindex.core.errors import (
    BusyError,
    CannotCreateError,
    DataError,
    InternalError,
    ModelMismatchError,
    NoInputError,
    PermissionDeniedError,
)
from mmindex.store import versions
from mmindex.store.leftovers import remove_leftovers
from mmindex.store.lock import writer_lock
from mmindex.store.objects import Objects
from mmindex.upkeep.check import check
from mmindex.upkeep.repair import repair
from support.manifests import counts, index_info, manifest


@pytest.fixture
def objects(tmp_path):
    return Objects(versions.create_layout(tmp_path / "store"))


def publish(objects, number, content=b"content"):
    ref = objects.write("index/image", lambda staged: staged.write(content))
    made = manifest(version=number, parent=number - 1 or None, objects=(ref,))
    return versions.publish_version(objects, made)


def test_the_published_version_is_read_back(objects):
    assert versions.read_current(objects.layout) is None
    first = publish(objects, 1)
    assert versions.read_current(objects.layout) == first
    second = publish(objects, 2, b"other")
    assert versions.read_current(objects.layout) == second
    assert versions.read_version(objects.layout, 1) == first
    assert versions.list_versions(objects.layout) == [1, 2]


def test_only_the_next_number_can_be_published(objects):
    publish(objects, 1)
    for number in (1, 3):
        with pytest.raises(InternalError):
            publish(objects, number)


def test_a_version_whose_objects_are_missing_or_damaged_is_not_published(objects):
    ref = objects.write("index/image", lambda staged: staged.write(b"content"))
    path = objects.layout.object(ref.sha256)
    path.write_bytes(b"c0ntent")
    with pytest.raises(DataError, match="damaged"):
        versions.publish_version(objects, manifest(objects=(ref,)))
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        versions.publish_version(objects, manifest(objects=(ref,)))
    assert versions.read_current(objects.layout) is None


def test_counts_that_do_not_balance_are_never_published(objects):
    with pytest.raises(InternalError, match="balance"):
        versions.publish_version(objects, manifest(counts=counts(indexed=3, seen=4)))


def test_a_killed_publish_is_cleaned_up_by_the_next_writer(objects):
    """Manifests above CURRENT and staged files are removed; finished objects stay."""
    layout = objects.layout
    first = publish(objects, 1)
    orphan = objects.write("embeddings/image/00000", lambda staged: staged.write(b"vectors"))
    layout.version(2).write_bytes(b"never committed")
    (layout.staging_dir / "x.tmp").write_bytes(b"half")
    remove_leftovers(layout)
    assert versions.list_versions(layout) == [1]
    assert list(layout.staging_dir.iterdir()) == []
    assert layout.object(orphan.sha256).exists()
    assert versions.read_current(layout) == first


def test_a_first_publish_killed_before_current_counts_as_nothing(objects):
    layout = objects.layout
    layout.version(1).write_bytes(b"{}")
    assert versions.read_current(layout) is None
    remove_leftovers(layout)
    assert versions.list_versions(layout) == []
    publish(objects, 1)


def test_a_lost_or_damaged_current_is_reported_and_repaired(objects):
    layout = objects.layout
    publish(objects, 1)
    second = publish(objects, 2, b"other")
    for damage in (
        layout.current_file.unlink,
        lambda: layout.current_file.write_text("{"),
    ):
        damage()
        with pytest.raises(DataError) as caught:
            versions.read_current(layout)
        assert "check --repair" in caught.value.hint
        assert repair(layout.root).version == 2
        assert versions.read_current(layout) == second


def test_repair_skips_a_version_with_damaged_objects(objects):
    layout = objects.layout
    first = publish(objects, 1)
    second = publish(objects, 2, b"other")
    layout.object(second.objects[0].sha256).write_bytes(b"0ther")
    layout.current_file.unlink()
    assert repair(layout.root).version == 1
    assert versions.read_current(layout) == first


def test_every_flipped_byte_of_a_manifest_is_found(objects):
    layout = objects.layout
    publish(objects, 1)
    path = layout.version(1)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(DataError):
            versions.read_current(layout)


def test_check_names_what_is_wrong(objects):
    layout = objects.layout
    publish(objects, 1)
    assert check(layout.root, full=True).problems == ()
    path = layout.object(versions.read_current(layout).objects[0].sha256)
    path.write_bytes(b"c0ntent")
    assert check(layout.root, full=False).problems == ()
    assert str(path) in check(layout.root, full=True).problems[0]
    path.unlink()
    assert str(path) in check(layout.root, full=False).problems[0]


def test_unknown_fields_in_a_manifest_are_refused(objects):
    layout = objects.layout
    made = publish(objects, 1)
    tree = json.loads(msgspec.json.encode(made))
    tree["surprise"] = 1
    layout.version(1).write_text(json.dumps(tree))
    with pytest.raises(DataError, match="surprise"):
        versions.read_version(layout, 1)


def test_an_index_of_an_unknown_side_is_damage(objects):
    layout = objects.layout
    made = publish(objects, 1)
    tree = json.loads(msgspec.json.encode(made))
    tree["indexes"] = {"texT": json.loads(msgspec.json.encode(index_info()))}
    layout.version(1).write_text(json.dumps(tree))
    with pytest.raises(DataError, match="texT"):
        versions.read_version(layout, 1)
    assert str(layout.version(1)) in check(layout.root, full=True).problems[0]


def test_a_newer_format_is_not_touched(objects):
    layout = objects.layout
    layout.format_file.write_text("2\n")
    for opening in (versions.open_layout, versions.create_layout):
        with pytest.raises(ModelMismatchError, match="format"):
            opening(layout.root)


def test_a_folder_with_other_content_is_not_a_store(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(CannotCreateError, match="not an mmindex store"):
        versions.create_layout(tmp_path)
    with pytest.raises(NoInputError):
        versions.open_layout(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(CannotCreateError, match="not a folder"):
        versions.create_layout(tmp_path / "store")
    with pytest.raises(CannotCreateError, match="cannot be created"):
        versions.create_layout(tmp_path / "store" / "below")


def test_damage_that_is_not_text_is_damage_too(objects):
    layout = objects.layout
    publish(objects, 1)
    layout.current_file.write_bytes(b'{"version":1,"manifest_sha256":"\xff"}')
    with pytest.raises(DataError, match="damaged"):
        versions.read_current(layout)
    layout.version(1).write_bytes(b'{"format":"\xff"}')
    with pytest.raises(DataError, match="not a manifest"):
        versions.read_version(layout, 1)
    layout.format_file.write_bytes(b"\xb1\n")
    with pytest.raises(DataError, match="FORMAT: damaged"):
        versions.open_layout(layout.root)


def test_a_stray_file_among_the_manifests_is_not_a_version(objects):
    layout = objects.layout
    first = publish(objects, 1)
    (layout.versions_dir / "copy of 1.json").write_bytes(layout.version(1).read_bytes())
    assert versions.list_versions(layout) == [1]
    assert versions.read_current(layout) == first


def test_a_folder_that_is_not_writable_is_reported_immediately(tmp_path, monkeypatch):
    """Root can write anywhere, so the answer of the operating system is simulated."""
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setattr(versions.os, "access", lambda *_: False)
    with pytest.raises(PermissionDeniedError):
        versions.create_layout(tmp_path / "store")


def test_a_second_writer_learns_who_holds_the_store(objects):
    with (
        writer_lock(objects.layout),
        pytest.raises(BusyError, match="process"),
        writer_lock(objects.layout),
    ):
        pass
    with writer_lock(objects.layout):
        pass


def test_a_first_run_overtaken_by_another_one_is_not_refused(tmp_path, monkeypatch):
    """Another process can create the store between the checks for a store and for other files."""
    root = tmp_path / "store"
    root.mkdir()
    look = Path.iterdir

    def overtaken(path):
        if path == root:
            monkeypatch.undo()
            versions.create_layout(root)
        return look(path)

    monkeypatch.setattr(Path, "iterdir", overtaken)
    assert versions.create_layout(root).is_store()
