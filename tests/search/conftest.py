"""Ten images in a store for tests of queries; some files define another ``store``."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmindex.search.query import Session
from mmindex.store.snapshot import Snapshot, open_snapshot
from support.images import COLOURS, write_pngs
from support.models import FakeEncoder
from support.stores import image_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Ten images of five colours with two captions each; image 0 also has a second name."""
    paths = write_pngs(tmp_path / "pictures", 10)
    images = {f"folder/pictures/{path.name}": path for path in paths}
    twin = tmp_path / "pictures" / "twin.png"
    twin.write_bytes(paths[0].read_bytes())
    images["folder/pictures/twin.png"] = twin
    captions = [
        (image_id, text)
        for number, image_id in enumerate(list(images)[:10])
        for text in (f"a {COLOURS[number % 5]} square", f"picture number {number}")
    ]
    image_store(tmp_path / "store", images, captions, FakeEncoder())
    return tmp_path / "store"


@pytest.fixture
def published(store: Path) -> Snapshot:
    return open_snapshot(store)


@pytest.fixture
def session(published: Snapshot) -> Session:
    return Session(published, FakeEncoder)
