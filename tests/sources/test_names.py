"""Names in a list match files with other spellings, without guessing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmindex.sources.names import match_names, normal_name

NAMES = st.text(st.sampled_from("ab/\\.éJPGjpg"), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("listed", "file"),
    [
        ("a\\1.jpg", "a/1.jpg"),
        ("1.jpg", "1.JPG"),
        ("1.jpg", "Images/1.jpg"),
        ("train/1.jpg", "1.jpg"),
        ("./1.jpg", "Images/1.JPG"),
        (unicodedata.normalize("NFD", "Zürich.jpg"), unicodedata.normalize("NFC", "Zürich.jpg")),
        (unicodedata.normalize("NFC", "Zürich.jpg"), unicodedata.normalize("NFD", "Zürich.jpg")),
    ],
)
def test_another_spelling_of_the_same_name(listed: str, file: str) -> None:
    assert match_names([listed, "other.jpg"], [file, "unlisted.jpg"]) == {file: listed}


@pytest.mark.parametrize(
    ("listed", "files"),
    [
        (["1.jpg"], ["a/1.jpg", "b/1.jpg"]),
        (["x/1.jpg", "y/1.jpg"], ["1.jpg"]),
        (["1.jpg", "1.JPG"], ["a/1.jpg"]),
        (["1.jpg"], ["11.jpg", "1.png"]),
        (["1.jpg"], ["1.jpg", "a/1.jpg", "1.JPG"]),
        (["A.jpg"], ["a.jpg"]),
    ],
)
def test_ambiguous_names_are_not_matched(listed: list[str], files: list[str]) -> None:
    assert match_names(listed, files) == {}


def test_the_same_name_has_priority_over_the_same_ending() -> None:
    assert match_names(["1.jpg"], ["1.JPG", "a/1.jpg"]) == {"1.JPG": "1.jpg"}


@settings(deadline=None)  # a machine may be busy
@given(st.sets(NAMES, max_size=6), st.lists(NAMES, max_size=6, unique=True))
def test_no_name_is_matched_twice_and_exact_matches_are_kept(
    listed: set[str], files: list[str]
) -> None:
    found = match_names(listed, files)
    assert len(set(found.values())) == len(found)
    assert not set(found) & listed
    assert not set(found.values()) & set(files)
    assert set(found) <= set(files)
    ends = [(normal_name(file), normal_name(name)) for file, name in found.items()]
    assert all(f"/{a}".endswith(f"/{b}") or f"/{b}".endswith(f"/{a}") for a, b in ends)
