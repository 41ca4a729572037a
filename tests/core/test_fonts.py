"""Plots draw every script for which a font is installed, and name missing fonts."""

from __future__ import annotations

import pytest

from mmindex.core import fonts


def test_latin_text_uses_the_default_font():
    assert fonts.plot_font(["red boat", "größe", "Ελλάδα"]) == fonts.PlotFont(("DejaVu Sans",), "")


def test_chinese_text_gets_a_suitable_font_or_a_note():
    chosen = fonts.plot_font(["一个穿着泳装的女人"])
    if any(fonts._letters(family) & {ord("泳")} for family in fonts._FAMILIES):
        assert chosen.note == ""
        assert len(chosen.families) == 2
    else:
        assert "泳" in chosen.note


def test_without_a_suitable_font_the_note_lists_the_boxes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fonts, "_FAMILIES", ())
    chosen = fonts.plot_font(["两只狗"])
    assert chosen.families == ("DejaVu Sans",)
    assert "no installed font contains 3 of the characters (两只狗)" in chosen.note
    assert "fonts-noto-cjk" in chosen.note
