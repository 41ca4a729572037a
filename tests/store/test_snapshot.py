"""The content of a version, and errors if a stage has not run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.modality import Modality
from mmindex.store import versions
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot, open_snapshot
from support.images import write_pngs
from support.manifests import manifest
from support.models import FakeEncoder
from support.stores import captions_table, image_store, images_table, key_of, make_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    [path] = write_pngs(tmp_path / "p", 1)
    image_store(tmp_path / "store", {"a": path}, [], FakeEncoder())
    return tmp_path / "store"


def change(store: Path, edit: Callable[[dict[str, object]], None]) -> None:
    """Publish the store's manifest again as the next version, edited."""
    published = open_snapshot(store)
    fields = msgspec.structs.asdict(published.manifest)
    fields["version"] = 2
    edit(fields)
    versions.publish_version(published.objects, type(published.manifest)(**fields))


def test_missing_stages_are_named(store: Path) -> None:
    change(store, lambda fields: fields.update(stages=("crawl",), encoder=None))
    with pytest.raises(NoInputError, match="missing stages: encode, index") as caught:
        open_snapshot(store)
    assert "`mmindex encode`" in caught.value.hint
    assert "`mmindex index`" in caught.value.hint


def test_a_store_where_nothing_is_published_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no mmindex store"):
        open_snapshot(tmp_path / "nowhere")
    versions.create_layout(tmp_path / "new")
    with pytest.raises(NoInputError, match="nothing is published"):
        open_snapshot(tmp_path / "new")


def test_a_side_without_an_index_is_named_with_what_helps(store: Path) -> None:
    published = open_snapshot(store)
    published.index(Modality.IMAGE)
    with pytest.raises(NoInputError, match="no captions to search") as caught:
        published.index(Modality.TEXT)
    assert "`to=image`" in caught.value.hint


def test_rows_are_read_from_the_row_groups_that_hold_them(tmp_path: Path) -> None:
    images = images_table([(f"i{n}", key_of(str(n)), f"/{n}") for n in range(10)])
    snapshot = make_store(tmp_path, images, captions_table([]), {}, None, group_rows=3)
    for rows in ([], [0], [2, 3, 9], list(range(10))):
        taken = snapshot.take("images", ["uri", "image_id"], np.array(rows, dtype=np.int64))
        assert taken.to_pydict() == {
            "uri": [f"/{n}" for n in rows],
            "image_id": [f"i{n}" for n in rows],
        }


def test_look_ups_are_prepared_after_some_requests_or_at_once(tmp_path: Path) -> None:
    images = images_table([("a", key_of("a"), "/a")])
    snapshot = make_store(tmp_path, images, captions_table([("a", "text")]), {}, None)
    requests = [snapshot.rows("images") for _ in range(6)]
    assert requests[:4] == [None] * 4
    assert requests[4] is requests[5] is not None
    at_once = snapshot.rows("captions", now=True)
    assert at_once is not None
    assert snapshot.rows("captions") is at_once


def test_rows_with_the_same_bytes_share_an_id(tmp_path: Path) -> None:
    paths = write_pngs(tmp_path / "p", 2)
    (tmp_path / "p" / "twin.png").write_bytes(paths[0].read_bytes())
    images = {"a": paths[0], "b": paths[1], "c": tmp_path / "p" / "twin.png"}
    snapshot = image_store(tmp_path / "store", images, [("b", "red")], FakeEncoder())
    assert snapshot.row_ids(Modality.IMAGE).tolist() == [0, 1, 0]
    assert snapshot.row_ids(Modality.TEXT).tolist() == [0]


def test_a_stage_that_has_not_run_is_named_with_the_object_it_makes(tmp_path: Path) -> None:
    snapshot = Snapshot(Objects(versions.create_layout(tmp_path / "store")), manifest())
    for name, stage in (("images", "crawl"), ("crawl/captions", "crawl"), ("ids/text", "index")):
        with pytest.raises(NoInputError, match=f"no {name}: {stage} has not run") as caught:
            snapshot.table(name)
        assert f"`mmindex {stage}`" in caught.value.hint
    with pytest.raises(NoInputError, match="encode has not run"):
        _ = snapshot.encoder
    with pytest.raises(NoInputError, match="no image index"):
        snapshot.vectors(Modality.IMAGE)


def test_a_damaged_object_is_found_by_verifying_unless_it_is_excepted(store: Path) -> None:
    snapshot = open_snapshot(store)
    snapshot.verify()
    ref = snapshot.manifest.require("images")
    path = snapshot.layout.object(ref.sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    again = open_snapshot(store)
    again.verify(but={ref.sha256})
    with pytest.raises(DataError, match=ref.sha256):
        again.verify()
