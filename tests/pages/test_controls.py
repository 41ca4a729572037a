"""Forms, pagers and image facts: rendered, inert and accessible."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmindex.pages import page as pages
from mmindex.pages.controls import Action, Fact, Field, pager
from mmindex.pages.page import Thumb, render_linked, stylesheet
from mmindex.pages.places import Place
from support.axe import grave_faults, opened
from support.pages import HOSTILE, Page

# A page as a server would make it.
TEMPLATE = """
{% extends "page.html" %}
{% import "parts.html" as parts %}
{% import "controls.html" as controls %}
{% block title %}Search{% endblock %}
{% block before %}
{{ controls.skip() }}
{% call controls.search("/", "/", query) %}{{ controls.filters(fields, "/?q=") }}{% endcall %}
{% endblock %}
{% block heading %}<bdi>{{ query }}</bdi>{% endblock %}
{% block main %}
{{ controls.detail(thumb, "a cat", place, captions, facts, actions) }}
{{ controls.pager(shown) }}
{% endblock %}
"""
STYLES = ["base.css", "cards.css", "controls.css"]


@pytest.fixture
def linked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Renders the template with a style sheet beside it."""
    monkeypatch.setattr(
        pages, "_file", lambda name, file=pages._file: TEMPLATE if name == "t" else file(name)
    )
    pages._environment.cache_clear()
    (tmp_path / "style.css").write_text(stylesheet(STYLES), encoding="utf-8")

    def make(query: str, value: str = "") -> str:
        return render_linked(
            "t",
            "style.css",
            query=query,
            fields=[
                Field("where", "Condition", value, hint="width > 640"),
                Field("from", "Taken from", "2019-01-01", "date"),
                Field("k", "How many", kind="number"),
                Field("sort", "Order", "taken", "select", [("", "best first"), ("taken", value)]),
            ],
            thumb=Thumb("data:image/gif;base64,R0lGODlhAQABAAAAACw=", 1, 1),
            place=Place("IMG_1.jpg", "a.zip"),
            captions=[query],
            facts=[Fact("Camera", value or "none"), Fact("Folder", "a/b", "/?where=folder")],
            actions=[Action("Similar pictures", "/?like=1")],
            shown=pager(20, 10, 10, 47, lambda offset: f"/?offset={offset}"),
        )

    yield make
    pages._environment.cache_clear()


def test_a_server_s_page_links_to_its_style_and_leaves_the_policy_to_the_server(linked) -> None:
    seen = Page(linked("a cat"))
    assert [one["href"] for one in seen.named("link")] == ["style.css"]
    assert not seen.named("style")
    assert not [one for one in seen.named("meta") if one.get("http-equiv")]
    assert not seen.named("script")


@pytest.mark.parametrize("text", [one for one in HOSTILE if "\ud83d" not in one])
def test_a_field_returns_what_was_entered(linked, text: str) -> None:
    seen = Page(linked(text, text))
    values = {one.get("name"): one["value"] for one in seen.named("input")}
    assert values["q"] == values["where"] == text
    assert not [name for _, attributes in seen.tags for name in attributes if name[:2] == "on"]
    assert {"script", "img src"}.isdisjoint(tag for tag, _ in seen.tags)


def test_filters_in_use_are_counted_and_open(linked) -> None:
    page = linked("a cat")
    assert "(2 in use)" in page
    assert Page(page).named("details") == [{"class": "filters", "open": None}]


@pytest.mark.parametrize(
    ("offset", "shown", "total", "previous", "following"),
    [
        (0, 10, 10, "", ""),
        (0, 10, 11, "", "10"),
        (10, 1, 11, "0", ""),
        (5, 10, 100, "0", "15"),
        (0, 10, None, "", "10"),
        (10, 3, None, "0", ""),
        (0, 0, 0, "", ""),
        (90, 0, 50, "80", ""),
    ],
)
def test_a_pager_links_to_existing_pages(
    offset: int, shown: int, total: int | None, previous: str, following: str
) -> None:
    found = pager(offset, shown, 10, total, str)
    assert (found.previous, found.following) == (previous, following)
    assert (found.first, found.last) == (offset + bool(shown), offset + shown)


@pytest.mark.slow
def test_axe_finds_no_serious_fault_in_forms(linked, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(linked("a cat"), encoding="utf-8")
    with opened(page) as tab:
        for width, scheme in ((1280, "light"), (1280, "dark"), (360, "light")):
            tab.set_viewport_size({"width": width, "height": 900})
            tab.emulate_media(color_scheme=scheme)
            assert grave_faults(tab) == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
