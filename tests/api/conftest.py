"""A small store with a fake model, opened through the Python API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import mmindex
from mmindex.models.encoder import Encoder
from mmindex.search import vectorize
from support.images import COLOURS, write_pngs
from support.models import FakeEncoder
from support.stores import image_store


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Return twenty images of five colours, by id."""
    paths = write_pngs(tmp_path / "pictures", 20)
    return {f"folder/pictures/{path.name}": path for path in paths}


@pytest.fixture
def store(tmp_path: Path, images: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of these images with one caption each and a fake model."""
    captions = [(name, f"a {COLOURS[n % 5]} square {n}") for n, name in enumerate(images)]
    image_store(tmp_path / "store", images, captions, FakeEncoder())
    encoder = FakeEncoder()

    def load(_published: object, _device: str) -> Encoder:
        return encoder

    monkeypatch.setattr(vectorize, "_load", load)
    monkeypatch.setenv("MMINDEX_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def index(store: Path) -> Iterator[mmindex.Index]:
    with mmindex.open(store) as opened:
        yield opened
