"""What must be published before anything can be searched, and what is said when it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mmindex.core.errors import NoInputError
from mmindex.core.modality import Modality
from mmindex.search.snapshot import open_published
from mmindex.store import versions
from support.models import FakeEncoder
from support.pictures import write_pictures
from support.stores import picture_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    [path] = write_pictures(tmp_path / "p", 1)
    picture_store(tmp_path / "store", {"a": path}, [], FakeEncoder())
    return tmp_path / "store"


def change(store: Path, edit: Callable[[dict[str, object]], None]) -> None:
    """Publish the store's manifest again as the next version, edited."""
    published = open_published(store)
    fields = msgspec.structs.asdict(published.manifest)
    fields["version"] = 2
    edit(fields)
    versions.publish_version(published.objects, type(published.manifest)(**fields))


def test_missing_stages_are_named(store: Path) -> None:
    change(store, lambda fields: fields.update(stages=("crawl",), encoder=None))
    with pytest.raises(NoInputError, match="encode and index") as caught:
        open_published(store)
    assert "`mmindex encode`" in caught.value.hint
    assert "`mmindex index`" in caught.value.hint


def test_a_store_where_nothing_is_published_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no mmindex store"):
        open_published(tmp_path / "nowhere")
    versions.create_layout(tmp_path / "new")
    with pytest.raises(NoInputError, match="nothing is published"):
        open_published(tmp_path / "new")


def test_a_side_without_an_index_is_named_with_what_helps(store: Path) -> None:
    published = open_published(store)
    published.require_index(Modality.IMAGE)
    with pytest.raises(NoInputError, match="no captions to search") as caught:
        published.require_index(Modality.TEXT)
    assert "`to=image`" in caught.value.hint
