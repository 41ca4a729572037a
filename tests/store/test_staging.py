"""Folders in staging/ belong to their holders; writers remove all others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmindex.core.errors import StorageError
from mmindex.store import staging
from mmindex.store.layout import Layout
from mmindex.store.objects import Objects
from mmindex.store.staging import clear_staging, hold_staging, is_held
from mmindex.store.versions import create_layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_layout(tmp_path / "store")


def names(layout: Layout) -> list[str]:
    return sorted(path.name for path in layout.staging_dir.iterdir())


def litter(layout: Layout) -> None:
    (layout.staging_dir / "half.tmp").write_bytes(b"half")
    (layout.staging_dir / "folder").mkdir()
    (layout.staging_dir / "folder" / "file").write_bytes(b"half")
    (layout.staging_dir / "dead.lock").write_bytes(b"")
    (layout.staging_dir / "dead").mkdir()
    (layout.staging_dir / "link").symlink_to(layout.root)


def test_held_folders_are_kept_and_everything_else_is_removed(layout: Layout) -> None:
    litter(layout)
    with hold_staging(layout) as held, hold_staging(layout) as other:
        kept = names(layout)
        assert clear_staging(layout) == 5
        assert len(names(layout)) == 4
        assert set(names(layout)) < set(kept)
        assert is_held(held.staging_dir)
        assert is_held(other.staging_dir)
        assert held.root == layout.root
    assert names(layout) == []
    assert not is_held(held.staging_dir)
    assert layout.root.is_dir()


def test_objects_are_written_from_a_held_folder(layout: Layout) -> None:
    with hold_staging(layout) as held:

        def fill(staged):  # type: ignore[no-untyped-def]
            assert list(held.staging_dir.iterdir())
            staged.write(b"content")
            clear_staging(layout)
            return 1

        ref = Objects(held).write("thing", fill)
    assert Objects(layout).path(ref).read_bytes() == b"content"


def test_folders_of_dead_holders_are_removed(layout: Layout) -> None:
    pid = os.fork()
    if pid == 0:
        context = hold_staging(layout)
        held = context.__enter__()
        (held.staging_dir / "half.tmp").write_bytes(b"half")
        os._exit(0)
    os.waitpid(pid, 0)
    assert len(names(layout)) == 2
    assert clear_staging(layout) == 2
    assert names(layout) == []


def test_a_holder_whose_lock_is_removed_creates_another(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, tries = staging._make_lock, []

    def unlucky(path: Path) -> int | None:
        tries.append(path)
        return None if len(tries) < 3 else made(path)

    monkeypatch.setattr(staging, "_make_lock", unlucky)
    with hold_staging(layout):
        assert len(tries) == 3
    monkeypatch.setattr(staging, "_make_lock", lambda _: None)
    with pytest.raises(StorageError, match="10 times"), hold_staging(layout):
        pass


def test_a_lock_that_a_writer_removed_between_two_steps_does_not_count(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layout.staging_dir / "x.lock"
    locked = staging.lock_file

    def late(descriptor: int) -> None:
        path.unlink()
        locked(descriptor)

    monkeypatch.setattr(staging, "lock_file", late)
    assert staging._make_lock(path) is None
