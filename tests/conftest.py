"""Fixtures that several test packages share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mmindex.store.layout import Layout
from mmindex.store.objects import Objects
from mmindex.store.versions import create_layout
from support.hostile_server import HostileServer, hostile_server
from support.models import FakeEncoder, TinyModel, save_tiny_model
from support.tally import (
    pytest_configure,
    pytest_runtest_logreport,
    pytest_terminal_summary,
    tally,
)

if TYPE_CHECKING:
    from mmindex.models.openclip import OpenClipEncoder

# Importing these names activates hooks and fixtures of this folder.
__all__ = ["pytest_configure", "pytest_runtest_logreport", "pytest_terminal_summary", "tally"]

# A shell that starts the tests in the background has them ignore SIGINT, and so would every process
# that they start: tests of Ctrl-C could then not pass.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A real open_clip model, saved as a folder and as a single file; do not change its files."""
    return save_tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def encoder(tiny_model: TinyModel) -> OpenClipEncoder:
    """The tiny model, loaded."""
    from support.loading import load  # here, because most tests need no torch

    return load(tiny_model.name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder for the store of a test."""
    return tmp_path / "store"


@pytest.fixture
def layout(root: Path) -> Layout:
    """An empty store."""
    return create_layout(root)


@pytest.fixture
def objects(layout: Layout) -> Objects:
    """An empty store's objects."""
    return Objects(layout)


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """A server on loopback."""
    with hostile_server() as running:
        yield running


@pytest.fixture
def fake_encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory, if the system has one."""
    from support.fakestore import fast_folder  # it imports everything that a build needs

    with fast_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """The folder of real photos (``coco_val2017/``, ``awkward/``), never part of the checkout."""
    folder = os.environ.get("MMINDEX_TEST_PHOTOS")
    if not folder:
        pytest.skip("MMINDEX_TEST_PHOTOS names no folder of real photos")
    return Path(folder)
