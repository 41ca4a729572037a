"""A small store with a fake model, served on loopback by the real server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from mmindex.models.encoder import Encoder
from mmindex.search import vectorize
from support.models import FakeEncoder
from support.pictures import COLOURS, write_pictures
from support.stores import picture_store

uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from mmindex.serve.app import listen, serving  # noqa: E402 # behind the check above
from mmindex.serve.service import Service  # noqa: E402
from mmindex.serve.settings import ServeSettings  # noqa: E402


@dataclass(slots=True)
class Running:
    """A service under test."""

    service: Service
    port: int
    server: Any
    thread: threading.Thread
    base: str = field(init=False)

    def __post_init__(self) -> None:
        self.base = f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.base, timeout=20, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        with self.client() as client:
            return client.get(path, **options)

    def raw(self, data: bytes, timeout: float = 5.0) -> bytes:
        """What the server answers to these bytes, until it closes or is silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as link:
            link.settimeout(timeout)
            out = b""
            try:
                link.sendall(data)
                while part := link.recv(65_536):
                    out += part
            except (TimeoutError, ConnectionError):
                pass
            return out

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """Twelve pictures of five colours, by id."""
    paths = write_pictures(tmp_path / "pictures", 12)
    return {f"folder/pictures/{path.name}": path for path in paths}


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    encoder = FakeEncoder()

    def load(_published: object, _device: str) -> Encoder:
        return encoder

    monkeypatch.setattr(vectorize, "_load", load)
    return encoder


@pytest.fixture
def store(tmp_path: Path, pictures: dict[str, Path], encoder: FakeEncoder) -> Path:
    """These pictures with one caption each."""
    captions = [(name, f"a {COLOURS[n % 5]} square {n}") for n, name in enumerate(pictures)]
    picture_store(tmp_path / "store", pictures, captions, encoder)
    return tmp_path / "store"


@pytest.fixture
def start(store: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts services over the store; all are stopped at the end."""
    running: list[Running] = []

    def begin(**options: Any) -> Running:
        settings = ServeSettings(store=store, port=0, cache=tmp_path / "cache", **options)
        settings.check()
        socket_ = listen(settings)
        service = Service.open(settings)
        server = serving(service)
        thread = threading.Thread(target=server.run, args=([socket_],), daemon=True)
        thread.start()
        one = Running(service, socket_.getsockname()[1], server, thread)
        running.append(one)
        return one

    yield begin
    for one in running:
        if one.thread.is_alive():
            one.stop()


@pytest.fixture
def served(start: Callable[..., Running]) -> Running:
    """The store, served with the default settings."""
    return start()
