"""The pages in a real browser: mouse, keyboard, uploads, new versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.axe import grave_faults, opened
from support.images import png, write_pngs
from support.models import FakeEncoder
from support.serving import Running, images_in, store_of
from support.stores import image_store

pytestmark = pytest.mark.slow


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Images that a test may change."""
    return images_in(tmp_path)


@pytest.fixture
def store(tmp_path: Path, images: dict[str, Path], encoder: FakeEncoder) -> Path:
    """A store that a test may change."""
    return store_of(tmp_path / "store", images, encoder)


@pytest.fixture
def served(start: Callable[..., Running]) -> Running:
    return start()


@pytest.fixture
def tab(served) -> Iterator[Any]:
    with opened(f"{served.base}/") as tab:
        tab.set_default_timeout(15_000)
        told: list[str] = []
        tab.on("console", lambda message: told.append(message.text))
        tab.on("pageerror", lambda error: told.append(str(error)))
        tab.wait_for_load_state("networkidle")
        yield tab
        assert told == []  # no script fails, and the policy blocks nothing


def names(tab: Any) -> list[str]:
    return [text.strip() for text in tab.locator(".cards .name").all_inner_texts()]


def ask(tab: Any, text: str) -> None:
    tab.fill("#q", text)
    tab.press("#q", "Enter")
    tab.wait_for_url("**q=**")
    tab.wait_for_load_state("networkidle")


def test_search_open_more_like_this_and_back(tab) -> None:
    ask(tab, "a red square")
    answer = names(tab)
    assert len(answer) == 5  # colours; near-duplicates share a card
    address = tab.url
    tab.click(".cards li:nth-child(2) .name a")
    tab.wait_for_selector(".detail img")
    assert tab.evaluate("document.querySelector('.detail img').naturalWidth") > 0
    tab.click("text=More like this")
    tab.wait_for_url("**image=**")
    assert answer[1] not in names(tab)
    tab.go_back()
    tab.go_back()
    assert tab.url == address
    assert names(tab) == answer


def test_filters_browse_and_narrow(tab) -> None:
    tab.click("summary:has-text('Filters')")
    tab.fill("#field-where", "image_id like '%00003%'")
    tab.click("text=Apply")
    tab.wait_for_url("**where=**")
    assert names(tab) == ["00003.png"]
    ask(tab, "a red square")
    assert "where=" in tab.url
    assert names(tab) == ["00003.png"]
    tab.click("text=Clear all")
    assert len(names(tab)) == 5


def test_an_image_is_chosen_dropped_and_pasted(served, tab, images) -> None:
    path = list(images.values())[4]
    tab.click("summary:has-text('Search with an image')")
    tab.set_input_files("#file", str(path))
    tab.wait_for_url("**picture=**")
    assert names(tab)[0] == path.name
    data = list(png(7))
    for kind, carrier in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        tab.goto(f"{served.base}/")
        tab.evaluate(
            """([kind, carrier, data]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(data)], "a.png", {type: "image/png"}));
                const event = kind === "drop"
                    ? new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true})
                    : new ClipboardEvent(kind, {clipboardData: transfer, bubbles: true});
                document.body.dispatchEvent(event);
            }""",
            [kind, carrier, data],
        )
        tab.wait_for_url("**picture=**")
        assert names(tab)[0] == "00007.png"


def test_the_keyboard_is_sufficient(tab) -> None:
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "q"
    tab.keyboard.type("a red square")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**q=**")
    for _ in range(40):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.matches('.cards .name a')"):
            break
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/picture/**")


def test_a_reload_after_a_publish_shows_the_new_version(served, tab, store, tmp_path) -> None:
    ask(tab, "a red square")
    assert "version 1" in tab.inner_text("footer")
    later = {f"folder/later/{p.name}": p for p in write_pngs(tmp_path / "later", 3)}
    image_store(store, later, [], FakeEncoder())
    served.service.live.poll()
    tab.reload()
    assert "version 2" in tab.inner_text("footer")
    assert len(names(tab)) == 3


def test_pages_of_a_long_result_keep_their_position(served, tab, store, tmp_path) -> None:
    many = {f"folder/many/{p.name}": p for p in write_pngs(tmp_path / "many", 150)}
    image_store(store, many, [], FakeEncoder())
    served.service.live.poll()
    ask(tab, "a red square")
    assert "in 60 files" in tab.inner_text("main") + tab.inner_text("header")
    tab.click("text=Next")
    tab.wait_for_url("**offset=60**")
    second = names(tab)
    tab.click("text=Next")
    tab.wait_for_url("**offset=120**")
    tab.go_back()
    assert names(tab) == second


@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_axe_finds_no_serious_fault_and_nothing_overflows(served, tab, images, width) -> None:
    name = next(iter(images))
    for path in ("/", "/?q=a+red+square", f"/picture/{name}?q=red", "/quarantine", "/about"):
        for scheme in ("light", "dark"):
            tab.set_viewport_size({"width": width, "height": 900})
            tab.emulate_media(color_scheme=scheme)
            tab.goto(served.base + path)
            assert grave_faults(tab) == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
