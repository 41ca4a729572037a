"""Source specs: KIND:PLACE[#SPLIT], and errors for invalid ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmindex.core.errors import NoInputError, UsageError
from mmindex.sources.registry import names
from mmindex.sources.spec import (
    SourceOptions,
    SourceSpec,
    open_source,
    parse_spec,
    source_name,
)
from mmindex.store.layout import Layout


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("coco:/data/coco", SourceSpec("coco", "/data/coco", None)),
        ("coco:/data/coco#val2017", SourceSpec("coco", "/data/coco", "val2017")),
        ("coco:/data/c#d/x#val2017", SourceSpec("coco", "/data/c#d/x", "val2017")),
        ("coco:val2017", SourceSpec("coco", "val2017", None)),
        ("flickr30k:a:b/c", SourceSpec("flickr30k", "a:b/c", None)),
        ("scenes:2000@7", SourceSpec("scenes", "2000@7", None)),
    ],
)
def test_a_spec_is_parsed(text: str, spec: SourceSpec) -> None:
    assert parse_spec(text) == spec
    assert str(spec) == text


def test_a_hash_in_the_name_of_an_existing_folder_starts_no_split(tmp_path: Path) -> None:
    folder = tmp_path / "photos#1"
    folder.mkdir()
    assert parse_spec(f"folder:{folder}") == SourceSpec("folder", str(folder), None)
    assert parse_spec(f"folder:{folder}#x") == SourceSpec("folder", str(folder), "x")


@pytest.mark.parametrize("text", ["", "coco", "coco:", "coco:#val", "coco:x#", "/data/photos"])
def test_a_spec_without_a_kind_or_a_place_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_spec(text)


@pytest.mark.parametrize("kind", ["url", "tar", "Coco", "s3", " folder"])
def test_an_unknown_kind_names_those_that_exist_and_no_others(kind: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(f"{kind}:x")
    assert f"kinds: {', '.join(names())}" in caught.value.message


@pytest.mark.parametrize("where", ["0", "x", "-5", "10@", "10@x", "10@99999999999999999999", "1#s"])
def test_invalid_scenes_are_refused_before_any_work(where: str) -> None:
    with pytest.raises(UsageError):
        parse_spec(f"scenes:{where}")


def test_a_missing_release_lists_the_existing_ones() -> None:
    with pytest.raises(NoInputError, match="known: val2017, train2017"):
        source_name(parse_spec("coco:val2018"))
    with pytest.raises(UsageError, match="only the split 'test'"):
        source_name(parse_spec("flickr30k:test#train"))
    with pytest.raises(NoInputError, match="known: all, train, val, test"):
        open_source(parse_spec("flickr30k:dev"), SourceOptions(Layout(Path("/nowhere")), 1))


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for where in (tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(NoInputError, match=str(where)):
            source_name(parse_spec(f"folder:{where}"))


def test_the_source_column_names_kind_folder_or_seed(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert source_name(parse_spec(f"folder:{tmp_path}/photos/")) == "folder/photos"
    assert source_name(parse_spec(f"coco:{tmp_path}")) == "coco"
    assert source_name(parse_spec("scenes:10")) == "scenes/0"
    assert source_name(parse_spec("coco:val2017")) == "coco"
    (tmp_path / "list.v2.csv").touch()
    assert source_name(parse_spec(f"urls:{tmp_path}/list.v2.csv")) == "urls/list.v2"
    (tmp_path / "photos" / "00000.tar").touch()
    for where in ("photos", "photos/*.tar", "*/00000.tar", "photos/{00000..00000}.tar"):
        name = tmp_path.name if where.startswith("*") else "photos"
        assert source_name(parse_spec(f"webdataset:{tmp_path}/{where}")) == f"webdataset/{name}"
    assert source_name(parse_spec("scenes:10@4294967296")) == "scenes/4294967296"
