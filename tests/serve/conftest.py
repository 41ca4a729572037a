"""A service for the tests of a module, and services that a test starts itself.

Tests that change a store, or its images, override ``images`` and ``store`` with their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mmindex.models.encoder import Encoder
from mmindex.search import vectorize
from support.models import FakeEncoder
from support.serving import Running, images_in, serving_store, store_of

pytest.importorskip("uvicorn", reason="the extra serve is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def images(folder: Path) -> dict[str, Path]:
    return images_in(folder)


@pytest.fixture(scope="module")
def encoder() -> Iterator[FakeEncoder]:
    """The model of every store that is opened."""
    fake = FakeEncoder()

    def load(_published: object, _device: str) -> Encoder:
        return fake

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectorize, "_load", load)
        yield fake


@pytest.fixture(scope="module")
def store(folder: Path, images: dict[str, Path], encoder: FakeEncoder) -> Path:
    return store_of(folder / "store", images, encoder)


@pytest.fixture(scope="module")
def served(store: Path, folder: Path) -> Iterator[Running]:
    """The store, served with the default settings."""
    with serving_store(store, folder / "cache") as running:
        yield running


@pytest.fixture
def start(store: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start services for the store; all are stopped at the end."""
    with ExitStack() as stack:

        def begin(**options: Any) -> Running:
            return stack.enter_context(serving_store(store, tmp_path / "cache", **options))

        yield begin
