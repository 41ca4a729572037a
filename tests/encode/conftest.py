"""An empty store, and the tiny model loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mmindex.store.objects import Objects
from mmindex.store.versions import create_layout
from support.models import TinyModel

if TYPE_CHECKING:
    from mmindex.encode.openclip import OpenClipEncoder


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(create_layout(tmp_path / "store"))


@pytest.fixture(scope="module")
def encoder(tiny_model: TinyModel) -> OpenClipEncoder:
    from support.loading import load  # here: most tests of this folder need no torch

    return load(tiny_model.name)
