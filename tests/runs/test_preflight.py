"""Missing space or permission is reported before anything is fetched, loaded or encoded."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmindex.core.config import Config
from mmindex.core.errors import CannotCreateError, PermissionDeniedError, StorageError
from mmindex.runs import stages
from mmindex.runs.preflight import estimate, plan_sources, require_room
from mmindex.runs.run import run
from mmindex.store.layout import Layout
from mmindex.store.place import free_bytes, require_writable
from support.fakestore import run_build, write_photos

STAGES = ("crawl", "encode", "index", "evaluate")
TWELVE = {f"{number:02}.jpg": number for number in range(12)}


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system in memory; it needs privileges that a container may lack."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder])
    if done.returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def config(*specs, **sections):
    return Config.model_validate({"source": [{"spec": spec} for spec in specs], **sections})


def estimated(layout, config, parent):
    return estimate(plan_sources(layout, config), config, parent, STAGES)


def test_a_too_small_disk_is_refused_with_both_figures(tmp_path):
    with mounted(tmp_path / "small", "size=4m") as folder:
        store = folder / "store"
        with pytest.raises(
            StorageError, match=r"needs at least [\d,]+ bytes .* [\d,]+ are free"
        ) as told:
            run(store, config("scenes:2000"), "x")
        assert "sources 22,000,000" in told.value.message
        assert list((store / "downloads").iterdir()) == []


def test_downloads_count_with_their_known_size(tmp_path):
    parts = estimated(Layout(tmp_path), config("coco:val2017"), None)
    assert parts["sources"] > 1_000_000_000
    # 5,000 images of 512 dimensions, twice: in shards and for search.
    assert parts["embeddings"] + parts["index"] > 2 * 5_000 * 512 * 2
    folder = tmp_path / "downloads" / "coco"
    folder.mkdir(parents=True)
    (folder / "val2017.zip.part").write_bytes(bytes(1_000_000))
    again = estimated(Layout(tmp_path), config("coco:val2017"), None)
    assert parts["sources"] - again["sources"] == 1_000_000


def test_a_changed_model_needs_space_for_all_vectors(tmp_path):
    from mmindex.runs.settings import settings
    from mmindex.store import versions

    photos = write_photos(tmp_path / "photos", TWELVE)
    run_build(tmp_path / "store", photos)
    layout = Layout(tmp_path / "store")
    parent = versions.read_current(layout)
    same = settings(layout.root, None, {})
    assert "embeddings" not in estimated(layout, same, parent)
    other = settings(layout.root, None, {"model.name": "ViT-B-16", "model.pretrained": "none"})
    assert estimated(layout, other, parent)["embeddings"] == 12 * (512 * 2 + 32)


def test_a_run_that_fits_is_not_refused(tmp_path):
    require_room(Layout(tmp_path / "new" / "store"), {"tables": 1})
    with pytest.raises(StorageError, match="tables"):
        require_room(Layout(tmp_path), {"tables": free_bytes(tmp_path) + (1 << 40)})


def test_a_read_only_file_system_is_reported_without_touching_it(tmp_path):
    with mounted(tmp_path / "disk", "size=8m") as folder:
        photos = write_photos(tmp_path / "photos", TWELVE)
        run_build(folder / "store", photos)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        for place in (folder / "store", folder / "new"):
            with pytest.raises(PermissionDeniedError, match="read-only"):
                require_writable(place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_reported(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionDeniedError):
        require_writable(tmp_path / "store")


def test_a_file_in_the_way_is_reported(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CannotCreateError):
        require_writable(tmp_path / "file" / "store")


def test_without_space_no_model_is_loaded(tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("the model was asked for")

    monkeypatch.setattr(stages, "encoder_source", never)
    with mounted(tmp_path / "small", "size=1m") as folder, pytest.raises(StorageError):
        run(folder / "store", config("scenes:2000"), "x")
