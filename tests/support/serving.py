"""A small store with a fake model, served on loopback by the real server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from mmindex.models.encoder import Encoder
from support.images import COLOURS, write_pngs
from support.stores import image_store


@dataclass(slots=True)
class Running:
    """A service under test."""

    service: Any
    port: int
    server: Any
    thread: threading.Thread
    base: str = field(init=False)

    def __post_init__(self) -> None:
        self.base = f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.base, timeout=60, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        with self.client() as client:
            return client.get(path, **options)

    def raw(self, data: bytes, timeout: float = 30.0) -> bytes:
        """Return the answer of the server to these bytes, until it closes or is silent."""
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
        self.thread.join(60)
        assert not self.thread.is_alive()


def images_in(folder: Path) -> dict[str, Path]:
    """Return twelve images of five colours, by id."""
    paths = write_pngs(folder / "pictures", 12)
    return {f"folder/pictures/{path.name}": path for path in paths}


def store_of(root: Path, images: dict[str, Path], encoder: Encoder) -> Path:
    """Publish a store of these images with one caption each."""
    captions = [(name, f"a {COLOURS[n % 5]} square {n}") for n, name in enumerate(images)]
    image_store(root, images, captions, encoder, keywords=True)
    return root


@contextmanager
def serving_store(store: Path, cache: Path, **options: Any) -> Iterator[Running]:
    """Serve the store until the block ends."""
    from mmindex.serve.app import listen, serving
    from mmindex.serve.service import Service
    from mmindex.serve.settings import ServeSettings

    settings = ServeSettings(store=store, port=0, cache=cache, **options)
    settings.check()
    with listen(settings) as listening:
        service = Service.open(settings)
        server = serving(service)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        running = Running(service, listening.getsockname()[1], server, thread)
        try:
            yield running
        finally:
            if thread.is_alive():
                running.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for other threads, even on a busy machine; the test checks the rest."""
    ends = time.monotonic() + 60
    while not condition() and time.monotonic() < ends:
        time.sleep(0.05)
