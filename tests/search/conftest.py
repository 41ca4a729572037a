"""What several tests of queries ask: ten pictures in a store; some files have another ``store``."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmindex.search.query import Session
from mmindex.store.snapshot import Snapshot, open_snapshot
from support.models import FakeEncoder
from support.pictures import COLOURS, write_pictures
from support.stores import picture_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Ten pictures of five colours, two captions each; picture 0 is there under a second name."""
    paths = write_pictures(tmp_path / "pictures", 10)
    pictures = {f"folder/pictures/{path.name}": path for path in paths}
    twin = tmp_path / "pictures" / "twin.png"
    twin.write_bytes(paths[0].read_bytes())
    pictures["folder/pictures/twin.png"] = twin
    captions = [
        (image_id, text)
        for number, image_id in enumerate(list(pictures)[:10])
        for text in (f"a {COLOURS[number % 5]} square", f"picture number {number}")
    ]
    picture_store(tmp_path / "store", pictures, captions, FakeEncoder())
    return tmp_path / "store"


@pytest.fixture
def published(store: Path) -> Snapshot:
    return open_snapshot(store)


@pytest.fixture
def session(published: Snapshot) -> Session:
    return Session(published, FakeEncoder)
