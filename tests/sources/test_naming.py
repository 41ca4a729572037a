"""Sources of a corpus never share ids and keep their names in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmindex.core.config import FetchConfig
from mmindex.core.errors import UsageError
from mmindex.sources.naming import source_names
from mmindex.sources.spec import parse_spec
from support.corpora import crawl_specs, jpeg, new_store, rows_of, write_files


def names(*texts: str, known: dict[str, str] | None = None) -> list[str]:
    return list(source_names(texts, FetchConfig(), known).values())


@pytest.fixture
def cameras(tmp_path: Path) -> list[str]:
    for number, owner in enumerate(("ann", "bob", "x/bob")):
        write_files(tmp_path / owner / "DCIM", {"1.jpg": jpeg(number)})
    return [f"folder:{tmp_path}/{owner}/DCIM" for owner in ("ann", "bob", "x/bob")]


def test_a_later_folder_of_the_same_name_gets_a_longer_one(cameras: list[str]) -> None:
    assert names(*cameras) == ["folder/DCIM", "folder/bob-DCIM", "folder/x-bob-DCIM"]


def test_a_name_in_the_store_is_kept(cameras: list[str]) -> None:
    ann, bob, _ = cameras
    assert names(bob, known={ann: "folder/DCIM", bob: "folder/bob-DCIM"}) == ["folder/bob-DCIM"]
    assert names(ann, bob, known={bob: "folder/DCIM"}) == ["folder/ann-DCIM", "folder/DCIM"]
    # The content of a store of an older release, which left out the images of the second source.
    both = {ann: "folder/DCIM", bob: "folder/DCIM"}
    assert names(ann, bob, known=both) == ["folder/DCIM", "folder/bob-DCIM"]


def test_one_folder_in_two_splits_keeps_one_name(cameras: list[str]) -> None:
    assert names(f"{cameras[0]}#train", f"{cameras[0]}#test") == ["folder/DCIM"] * 2


def test_a_given_name_is_in_ids_and_in_the_source_column(
    tmp_path: Path, cameras: list[str]
) -> None:
    objects = new_store(tmp_path / "store")
    report = crawl_specs(objects, cameras[0], f"Bob's=folder:{tmp_path}/bob/DCIM".replace("'", ""))
    rows = rows_of(objects, report)[0]
    assert [(row["image_id"], row["source"]) for row in rows] == [
        ("folder/DCIM/1.jpg", "folder/DCIM"),
        ("folder/Bobs/1.jpg", "folder/Bobs"),
    ]


def test_published_corpora_keep_their_ids_however_many_copies_there_are(tmp_path: Path) -> None:
    for copy in "ab":
        (tmp_path / copy).mkdir()
    assert names(f"coco:{tmp_path}/a", f"coco:{tmp_path}/b") == ["coco", "coco"]
    assert names(f"mine=coco:{tmp_path}/b") == ["coco/mine"]


def test_one_name_for_two_places_is_refused(cameras: list[str]) -> None:
    with pytest.raises(UsageError, match="another source has the name folder/mine"):
        names(*(f"mine={camera}" for camera in cameras))


@pytest.mark.parametrize("name", ["", " ", "a/b", "..", "a\nb", "-x"])
def test_a_name_that_is_invalid_in_ids_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a valid name for a source"):
        parse_spec(f"{name}=folder:/srv")


def test_an_equals_sign_in_a_path_names_nothing() -> None:
    assert parse_spec("folder:/srv/a=b:c").name is None
    assert str(parse_spec("mine=folder:/srv/a=b#x")) == "mine=folder:/srv/a=b#x"
