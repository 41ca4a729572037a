"""The store with the images to filter."""

from __future__ import annotations

import pytest

from support.filtering import Store, filtered_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filtered_store(tmp_path_factory.mktemp("filters") / "store")
