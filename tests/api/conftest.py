"""A small store with a fake model, opened through the Python API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import mmindex
from mmindex.models.encoder import Encoder
from mmindex.search import vectorize
from support.models import FakeEncoder
from support.pictures import COLOURS, write_pictures
from support.stores import picture_store


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """Twenty pictures of five colours, by id."""
    paths = write_pictures(tmp_path / "pictures", 20)
    return {f"folder/pictures/{path.name}": path for path in paths}


@pytest.fixture
def store(tmp_path: Path, pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """These pictures with one caption each; the model is a fake one."""
    captions = [(name, f"a {COLOURS[n % 5]} square {n}") for n, name in enumerate(pictures)]
    picture_store(tmp_path / "store", pictures, captions, FakeEncoder())
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
