"""Fixtures for tests of the command line; some files define another ``store``."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmindex.models.encoder import Encoder
from mmindex.search import vectorize as library
from support.asking import CAPTIONS
from support.hostile_server import HostileServer, Reply
from support.images import write_pngs
from support.models import FakeEncoder
from support.stores import image_store


@pytest.fixture
def server(server: HostileServer) -> HostileServer:
    """A server whose robots.txt allows everything."""
    server.routes["/robots.txt"] = Reply(b"")
    return server


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    paths = write_pngs(tmp_path / "pictures", 5)
    return {f"folder/{path.name}": path for path in paths}


@pytest.fixture
def store(tmp_path: Path, images: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five images, one caption each; the model is the fake one."""
    captions = list(zip(images, CAPTIONS, strict=True))
    image_store(tmp_path / "store", images, captions, FakeEncoder())

    def load(_published: object, device: str) -> Encoder:
        assert device == "auto"
        return FakeEncoder()

    monkeypatch.setattr(library, "_load", load)
    monkeypatch.setenv("MMINDEX_STORE", str(tmp_path / "store"))
    return tmp_path / "store"
