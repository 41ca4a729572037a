"""The descriptions of published corpora: complete, typed, with what was verified."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmindex.core.errors import DataError, InternalError, NoInputError
from mmindex.sources.corpora import explain_missing_release, known, list_corpora
from mmindex.sources.kinds import built_in

CORPORA = {corpus.name: corpus for corpus in list_corpora()}


def test_coco_and_flickr30k_are_described() -> None:
    assert set(CORPORA) == {"coco", "flickr30k"}
    files = {file.name: file for file in CORPORA["coco"].files}
    assert files["val2017.zip"].bytes == 815_585_330
    assert files["val2017.zip"].md5 == "442b8da7639aecaf257c1dceb8ba8c80"
    splits = {(split.kind, split.name): split for split in CORPORA["coco"].splits}
    assert (splits["coco", "val2017"].images, splits["coco", "val2017"].captions) == (5_000, 25_014)
    assert splits["coco-karpathy", "test"].captions == 25_010
    sizes = {split.name: split.images for split in CORPORA["flickr30k"].splits}
    assert sizes == {"all": 31_783, "train": 29_000, "val": 1_014, "test": 1_000}


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_every_fact_is_well_formed_and_has_sources(name: str) -> None:
    corpus = CORPORA[name]
    assert corpus.licence
    for file in corpus.files:
        assert file.url.startswith(("http://", "https://"))
        assert file.url.endswith(f"/{file.name}")
        assert file.md5 is None or re.fullmatch(r"[0-9a-f]{32}", file.md5)
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        stated = {key for key in ("bytes", "md5", "sha256") if getattr(file, key) is not None}
        assert file.verified or stated <= set(file.seen_in)
        assert file.verified or file.seen_in
    assert {split.kind for split in corpus.splits} <= set(built_in())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("verified = false", "verifed = false", "verifed"),
        ('files = ["a.zip"]', 'files = ["b.zip"]', "b.zip"),
        ("title", "title = 1 2", "line"),
    ],
)
def test_a_damaged_description_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = (
        'name = "x"\ntitle = "X"\nhomepage = "h"\nlicence = "l"\n[[files]]\nname = "a.zip"\n'
        'url = "http://x/a.zip"\nverified = false\n[[splits]]\nkind = "coco"\nname = "s"\n'
        'files = ["a.zip"]\n'
    )
    (tmp_path / "x.toml").write_text(text)
    assert list_corpora(tmp_path)[0].splits[0].images is None
    (tmp_path / "x.toml").write_text(text.replace(old, new))
    with pytest.raises(InternalError, match=words):
        list_corpora(tmp_path)


def test_an_unknown_release_names_the_known_ones() -> None:
    assert "known: val2017, train2017, val2014" in explain_missing_release("coco", "x").message
    assert "folder:PATH" in explain_missing_release("folder", "x").hint


_OWN = (
    'name = "coco"\ntitle = "C"\nhomepage = "h"\nlicence = "l"\n[[files]]\nname = "a.zip"\n'
    'url = "http://x/a.zip"\nverified = true\nmirrors = ["http://y/a.zip"]\n[[splits]]\n'
    'kind = "coco"\nname = "mine"\nfiles = ["a.zip"]\n'
)


def test_a_description_from_the_user_replaces_the_one_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(_OWN)
    found = {corpus.name: corpus for corpus in known(str(tmp_path / "own.toml"))}
    assert set(found) == {"coco", "flickr30k"}
    assert [split.name for split in found["coco"].splits] == ["mine"]
    assert found["coco"].files[0].mirrors == ("http://y/a.zip",)
    assert found["flickr30k"] == CORPORA["flickr30k"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("verified", "verifed", "verifed"),
        ('"a.zip"\n', '"../a.zip"\n', "is not a file name"),
        ('name = "coco"', 'name = ".."', "is not a file name"),
        ('["a.zip"]', '["b.zip"]', "b.zip"),
    ],
)
def test_a_damaged_description_from_the_user_is_bad_data(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    (tmp_path / "own.toml").write_text(_OWN.replace(old, new))
    with pytest.raises(DataError, match=words):
        known(str(tmp_path / "own.toml"))
    with pytest.raises(NoInputError):
        known(str(tmp_path / "gone.toml"))
