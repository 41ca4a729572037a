"""The files that are skipped in folders of users."""

from __future__ import annotations

import pytest

from mmindex.core.errors import UsageError
from mmindex.core.records import Skip
from mmindex.sources.rules import Rules


def rules(exclude: str = "", include: str = "", *, all_files: bool = False) -> Rules:
    return Rules.of(exclude.split(), include.split(), all_files=all_files)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a.jpg", None),
        ("2019/Rome/a.JPG", None),
        ("._a.jpg", Skip.HIDDEN),
        (".thumbnails/a.jpg", Skip.HIDDEN),
        ("2019/@eaDir/a.jpg/SYNOFILE_THUMB_M.jpg", Skip.CACHE),
        ("Thumbs.db", Skip.HIDDEN),
        ("Catalog Previews.lrdata/a/b.jpg", Skip.CACHE),
        ("Mine.aplibrary/Thumbnails/a.jpg", Skip.CACHE),
        ("Mine.aplibrary/Masters/a.jpg", None),
        ("Mine.photoslibrary/resources/derivatives/a.jpg", Skip.CACHE),
        ("Mine.photoslibrary/originals/0/a.jpg", None),
        ("Thumbnails/a.jpg", None),
        ("__MACOSX/a.jpg", Skip.CACHE),
        ("#recycle/a.jpg", Skip.CACHE),
        ("a.mp4", Skip.NOT_AN_IMAGE),
        ("a", Skip.NOT_AN_IMAGE),
    ],
)
def test_files_that_do_not_belong_to_the_user_are_skipped(name: str, why: Skip | None) -> None:
    assert rules().skip_path(name) == why


def test_every_file_except_hidden_ones_is_read_on_request() -> None:
    every = rules(all_files=True)
    assert every.skip_path("a.mp4") is None
    assert every.skip_path("._a.mp4") is Skip.HIDDEN


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("*.png", ["a.png", "x/y/a.PNG"], ["a.jpg", "a.png.jpg"]),
        ("Exports", ["Exports/a.jpg", "x/exports/y/a.jpg"], ["Exports.jpg", "MyExports/a.jpg"]),
        ("2019/*", ["2019/a.jpg", "2019/x/a.jpg"], ["x/2019/a.jpg"]),
        ("2019/**/b.jpg", ["2019/b.jpg", "2019/x/y/b.jpg"], ["b.jpg", "2019/c.jpg"]),
        ("/top.jpg", ["top.jpg"], ["x/top.jpg"]),
        ("**/raw/**", ["raw/a.jpg", "x/raw/y/a.jpg"], ["raw.jpg"]),
        ("IMG_?.jpg", ["IMG_1.jpg"], ["IMG_12.jpg"]),
        ("a+(b).jpg", ["a+(b).jpg"], ["aab.jpg"]),
    ],
)
def test_globs(glob: str, matching: list[str], other: list[str]) -> None:
    for name in matching:
        assert rules(exclude=glob).skip_path(name) is Skip.EXCLUDED, name
        assert rules(include=glob).skip_path(name) is None, name
    for name in other:
        assert rules(exclude=glob).skip_path(name) is None, name
        assert rules(include=glob).skip_path(name) is Skip.EXCLUDED, name


def test_an_excluded_file_is_not_included_again() -> None:
    both = rules(exclude="Exports", include="*.jpg")
    assert both.skip_path("Exports/a.jpg") is Skip.EXCLUDED
    assert both.skip_path("a.jpg") is None


@pytest.mark.parametrize("glob", ["", " ", "/"])
def test_an_empty_glob_is_refused(glob: str) -> None:
    with pytest.raises(UsageError):
        Rules.of([glob], [], all_files=False)
