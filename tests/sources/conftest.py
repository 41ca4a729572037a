"""A server on loopback, and an empty store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmindex.store.layout import Layout
from mmindex.store.versions import create_layout
from support.hostile_server import HostileServer, hostile_server


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_layout(tmp_path / "store")
