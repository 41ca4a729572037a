"""The names of images on pages, and links that reveal no folder of the user."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmindex.pages.places import Place, breakable, folder_of, place_of


def test_a_file_has_its_name_and_a_member_that_of_its_archive(tmp_path: Path) -> None:
    assert place_of("/r/2019/a b.jpg", "f/2019/a b.jpg") == Place("a b.jpg")
    packed = tmp_path / "val2017.zip"
    packed.write_bytes(b"")
    member = place_of(f"{packed}!val2017/1.jpg", "coco/1", tmp_path / "page.html")
    assert member == Place("1.jpg", "val2017.zip")
    table = tmp_path / "0001.parquet"
    table.write_bytes(b"")
    row = place_of(f"{table}!image/7", "set/seven", tmp_path / "page.html")
    assert row == Place("seven", "0001.parquet")


@pytest.mark.parametrize("name", ["javascript:alert(1)", 'a"b.jpg', "?q#x.jpg", "%41", "http:/x"])
def test_a_link_is_a_file_below_the_page_whatever_its_name(tmp_path: Path, name: str) -> None:
    found = place_of(f"{tmp_path}/p/{name}", "id", tmp_path / "page.html")
    assert found.href.startswith("./p/")
    assert not set(found.href) & set("\"':?#<> ")
    assert unquote_to_bytes(found.href) == f"./p/{name}".encode()


def test_bytes_that_are_not_utf8_keep_their_link(tmp_path: Path) -> None:
    found = place_of(f"file://{tmp_path}/caf%E9.jpg", "id", tmp_path / "page.html")
    assert unquote_to_bytes(found.href) == b"./caf\xe9.jpg"


def test_no_link_reveals_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home" / "jane"
    monkeypatch.setenv("HOME", str(home))
    image = f"{home}/Pictures/a.jpg"
    assert place_of(image, "id", home / "Documents" / "p.html").href == "./../Pictures/a.jpg"
    assert place_of(image, "id", home / "p.html").href == "./Pictures/a.jpg"
    assert place_of(image, "id", tmp_path / "p.html").href == ""
    assert place_of(image, "id", Path("/p.html")).href == ""
    assert place_of(image, "id").href == ""


def test_names_break_after_folders_and_inside_long_words_only() -> None:
    assert breakable("folder/2019/IMG_2045.jpg") == "folder/<wbr>2019/<wbr>IMG_2045.jpg"
    assert breakable("one_rather_long_name.jpg") == ("one_<wbr>rather_<wbr>long_<wbr>name.<wbr>jpg")
    assert breakable("<b>/\u202e") == "&lt;b&gt;/<wbr>\\u202e"


@given(st.text())
def test_line_breaks_do_not_change_the_text(text: str) -> None:
    from markupsafe import escape

    from mmindex.core.display import visible

    assert breakable(text).replace("<wbr>", "") == escape(visible(text))


def test_a_folder_is_the_part_before_the_name() -> None:
    assert folder_of("folder/Pictures/2019/a.jpg") == "folder/Pictures/2019"
    assert folder_of("alone") == "alone"
