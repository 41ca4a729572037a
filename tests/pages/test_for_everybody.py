"""Pages are accessible: axe-core's rules, any width, the keyboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmindex.core.config import EvaluateConfig
from mmindex.core.modality import Modality
from mmindex.evaluate.stage import measure
from mmindex.insight.corpus_map import CorpusMap, MapGroup, MapPoint, corpus_map
from mmindex.insight.dedup import near_duplicates
from mmindex.pages.duplicates import dedup_page
from mmindex.pages.gallery import Request, gallery_page
from mmindex.pages.map import map_page
from mmindex.pages.report import report_page
from mmindex.search.answer import Answer
from mmindex.search.hits import Limit
from mmindex.search.opened import Opened
from mmindex.search.query import Session
from mmindex.store.snapshot import Snapshot, open_snapshot
from support.axe import grave_faults, opened
from support.images import COLOURS, write_pngs
from support.models import FakeEncoder
from support.stores import image_store

pytestmark = pytest.mark.slow

PHONE, DESK, WALL = 360, 1280, 3840
NAMES = ["a", "2019/Summer holiday/IMG_2034.jpg", "a_very_long_name_of_some_export_program-1.png"]


def published(folder: Path, *, captions: bool = True) -> Snapshot:
    """Images of all shapes, including a copy and a smaller version, and a missing one."""
    paths = write_pngs(folder / "p", 6)
    images = {(NAMES[n] if n < len(NAMES) else f"f/{n}"): p for n, p in enumerate(paths)}
    for name, size in {"panorama": (900, 90), "tower": (60, 700), "small": (24, 20)}.items():
        with Image.open(paths[0]) as first:
            first.resize(size).save(folder / "p" / f"{name}.png")
        images[f"f/{name}"] = folder / "p" / f"{name}.png"
    (folder / "p" / "copy.png").write_bytes(paths[1].read_bytes())
    images["f/copy"] = folder / "p" / "copy.png"
    said = [(name, f"a {COLOURS[n % 5]} thing") for n, name in enumerate(images)] * 2
    image_store(folder / "store", images, said if captions else [], FakeEncoder())
    paths[5].unlink()
    return open_snapshot(folder / "store")


def gallery(snapshot: Snapshot, page: Path) -> str:
    with Session(Opened(snapshot, FakeEncoder)) as session:
        answer = session.text("a red thing", Modality.IMAGE, Limit(100))
    return gallery_page(snapshot, answer, Request(page=page))


def captions(snapshot: Snapshot, page: Path) -> str:
    with Session(Opened(snapshot, FakeEncoder)) as session:
        answer = session.image("a", Modality.TEXT, Limit(100))
    return gallery_page(snapshot, answer, Request(page=page))


def nothing(snapshot: Snapshot, page: Path) -> str:
    answer = Answer("red", Modality.IMAGE, 1, ())
    return gallery_page(snapshot, answer, Request(0.9, "width > 9", page))


def duplicates(snapshot: Snapshot, page: Path) -> str:
    return dedup_page(snapshot, near_duplicates(snapshot, 0.9), 0.9, page)


def drawn_map(snapshot: Snapshot, page: Path) -> str:
    return map_page(snapshot, corpus_map(snapshot), page=page)


def report(snapshot: Snapshot, _: Path) -> str:
    config = EvaluateConfig()
    return report_page(snapshot, measure(snapshot, config), config)


def owners_report(_: Snapshot, page: Path) -> str:
    return report(published(page.parent / "owner", captions=False), page)


Make = Callable[[Snapshot, Path], str]
PAGES: Mapping[str, Make] = {
    one.__name__: one
    for one in (gallery, captions, nothing, duplicates, drawn_map, report, owners_report)
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each page once, written next to its images."""
    folder = tmp_path_factory.mktemp("everybody")
    snapshot = published(folder)

    def make(name: str) -> Path:
        page = folder / f"{name}.html"
        if not page.exists():
            page.write_text(PAGES[name](snapshot, page), encoding="utf-8")
        return page

    return make


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_serious_fault(made: Callable[[str], Path], name: str) -> None:
    with opened(made(name)) as tab:
        for folded in tab.query_selector_all("summary"):
            folded.click()
        for width, scheme in ((DESK, "light"), (DESK, "dark"), (PHONE, "light")):
            tab.set_viewport_size({"width": width, "height": 900})
            tab.emulate_media(color_scheme=scheme)
            assert grave_faults(tab) == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_overflows(made: Callable[[str], Path], name: str) -> None:
    with opened(made(name)) as tab:
        for width in (PHONE, 768, DESK, WALL):
            tab.set_viewport_size({"width": width, "height": 900})
            assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_the_keyboard_goes_from_image_to_image_on_a_map(made: Callable[[str], Path]) -> None:
    with opened(made("drawn_map")) as tab:
        card, said = tab.locator("#peek"), tab.locator("#said")
        tab.locator("#plane").focus()
        seen = set()
        for key in ("ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowUp", "ArrowDown", "ArrowRight"):
            tab.keyboard.press(key)
            assert card.is_visible()
            seen.add(said.text_content())
        assert len(seen) > 1
        assert all(" thing" in one for one in seen)  # the captions
        tab.keyboard.press("+")
        assert card.is_visible()
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.getAttribute('href')").startswith("./p/")
        tab.keyboard.press("Escape")
        assert card.is_hidden()
        assert tab.evaluate("document.activeElement.id") == "plane"
        tab.keyboard.press("Escape")
        assert tab.evaluate("view.zoom") == 1


def test_the_wheel_scrolls_the_page_until_the_map_is_selected(made: Callable[[str], Path]) -> None:
    with opened(made("drawn_map")) as tab:
        box = tab.locator("#plane").bounding_box()
        middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.mouse.move(*middle)
        tab.mouse.wheel(0, -300)
        assert tab.evaluate("view.zoom") == 1
        tab.mouse.click(*middle)
        tab.mouse.wheel(0, -300)
        tab.wait_for_function("view.zoom > 1")


def test_a_map_of_many_images_is_drawn_as_a_cloud(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = tuple(
        MapPoint(f"v/{n}", f"/v.npy#{n}", x, y, 1 + n % 2, 0.5, 0, None)
        for n, (x, y) in enumerate(rng.uniform(size=(20_000, 2)).tolist())
    )
    groups = tuple(MapGroup(n, f"group {n}", 10_000, n / 3, 0.5, (n,)) for n in (1, 2))
    found = CorpusMap(1, 20_000, 20_000, "t-SNE", "", 0, points, groups, ())
    page = tmp_path / "map.html"
    page.write_text(map_page(published(tmp_path), found), encoding="utf-8")
    with opened(page) as tab:
        tab.wait_for_function("canvas.width > 300")
        colours = "new Set(new Uint32Array(brush.getImageData(0, 0, 900, 500).data.buffer)).size"
        tab.wait_for_function(f"{colours} > 20")
        tab.locator("#plane").focus()
        tab.keyboard.press("ArrowRight")
        # There is no image, so there is no link.
        assert tab.locator("#peek a").get_attribute("href") is None
        assert "v.npy" in tab.locator("#said").text_content()


@pytest.mark.parametrize("name", ["gallery", "captions", "duplicates"])
def test_a_phone_shows_two_columns(made: Callable[[str], Path], name: str) -> None:
    with opened(made(name)) as tab:
        for width in (PHONE, 430):
            tab.set_viewport_size({"width": width, "height": 900})
            lefts = tab.eval_on_selector_all(
                ".cards .card", "all => all.map(one => one.getBoundingClientRect().left)"
            )
            assert len({round(left) for left in lefts}) == 2


def test_images_of_every_shape_are_shown_completely(made: Callable[[str], Path]) -> None:
    with opened(made("gallery")) as tab:
        fits = tab.eval_on_selector_all(
            ".frame img", "all => all.map(one => getComputedStyle(one).objectFit)"
        )
        assert set(fits) == {"contain"}
        shapes = tab.eval_on_selector_all(
            ".cards .frame",
            "all => all.map(one => Math.round(100 * one.clientWidth / one.clientHeight))",
        )
        assert set(shapes) == {125}


def test_the_keyboard_reaches_an_image_once_and_shows_where_it_is(
    made: Callable[[str], Path],
) -> None:
    with opened(made("gallery")) as tab:
        stops = []
        for _ in range(40):
            tab.keyboard.press("Tab")
            stop = tab.evaluate(
                "[document.activeElement.tagName, document.activeElement.textContent,"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
            if stop[0] == "BODY":
                break
            stops.append(stop)
        links = [text for tag, text, _ in stops if tag == "A"]
        assert len(links) == len(set(links)) == tab.locator(".name a").count() > 3
        assert {outline for _, _, outline in stops} == {"solid"}


def test_a_fault_is_detected(tmp_path: Path) -> None:
    """A negative control: a page that nobody could read."""
    page = tmp_path / "page.html"
    page.write_text(
        "<title>x</title><p style='color: #bbb; background: #ccc'>faint<img src='data:'>"
    )
    with opened(page) as tab:
        found = "".join(grave_faults(tab))
    assert "color-contrast" in found
    assert "image-alt" in found
    assert "html-has-lang" in found
