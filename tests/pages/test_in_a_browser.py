"""The three pages in a real browser, in both colour schemes, and inert with any caption."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image

from mmindex.core.config import EvaluateConfig
from mmindex.core.modality import Modality
from mmindex.evaluate.stage import measure
from mmindex.insight.dedup import near_duplicates
from mmindex.pages.duplicates import dedup_page
from mmindex.pages.gallery import gallery_page
from mmindex.pages.report import report_page
from mmindex.search.hits import Limit
from mmindex.search.query import Session
from mmindex.store.snapshot import Snapshot, open_snapshot
from support import pages
from support.browser import assert_inert, browse
from support.images import write_pngs
from support.models import FakeEncoder
from support.stores import image_store

HOSTILE = [
    *pages.HOSTILE,
    "<script>document.title = 'taken'; document.body.innerHTML = 'taken'</script>",
    "<img src='http://example.com/leak.png' onerror='document.title=1'>",
    "</style><style>body { background: url(http://example.com/leak) }</style>",
    "<link rel=stylesheet href=http://example.com/leak.css><meta http-equiv=refresh content=0>",
    "<iframe src='http://example.com/leak'></iframe><svg onload=alert(4)>",
    "𝓦ide 全角文字の説明 한국어 हिन्दी ไทย 🧑‍🚀 e" + "\u0301" * 40,
    "unbroken" * 60,
]
SCHEMES = {"light": False, "dark": True}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Images with hostile names and captions; the first also in a smaller size."""
    folder = tmp_path_factory.mktemp("pages")
    paths = write_pngs(folder / "p", len(HOSTILE))
    names = [f"<b onclick=alert(5)>{text}".replace("\ud83d", "") for text in HOSTILE]
    images = dict(zip(names, paths, strict=True))
    with Image.open(paths[0]) as first:
        first.resize((24, 20)).save(folder / "copy.png")
    images["copy"] = folder / "copy.png"
    captions = list(zip(images, HOSTILE, strict=False))
    image_store(folder / "store", images, captions, FakeEncoder())
    return open_snapshot(folder / "store")


def gallery(published: Snapshot) -> str:
    with Session(published, FakeEncoder) as session:
        return gallery_page(published, session.text(HOSTILE[-6], Modality.IMAGE, Limit(100)))


def dedup(published: Snapshot) -> str:
    return dedup_page(published, near_duplicates(published, 0.9), 0.9)


def report(published: Snapshot) -> str:
    config = EvaluateConfig()
    measured = measure(published, config)
    return report_page(published, measured, config)


def colours(scheme: str) -> dict[str, str]:
    """Return the named colours of the style sheet."""
    css = (resources.files("mmindex.pages") / "templates/base.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)
    found: dict[str, str] = {}
    for block in blocks[: 1 + SCHEMES[scheme]]:
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("make", [gallery, dedup, report])
def test_a_page_is_drawn_in_both_schemes_and_is_inert(
    published: Snapshot, tmp_path: Path, make, scheme: str
) -> None:
    """No script runs, nothing is fetched or blocked, and no element is added."""
    source = make(published)
    page = tmp_path / "page.html"
    page.write_text(source, encoding="utf-8")
    seen = browse(page, dark=SCHEMES[scheme])
    assert_inert(seen, source)
    named = colours(scheme)
    assert seen.screenshot.size == (1280, 2000)
    assert seen.pixels(named["page"]) > 0.1 * 1280 * 2000
    assert seen.pixels(named["card"]) > 50_000
    assert seen.pixels(named["accent"]) > 200
    assert seen.pixels(named["ink"]) > 100
    # The images are displayed: areas of many other colours.
    drawn = seen.screenshot.getcolors(1 << 24) or []
    assert sum(count > 50 for count, _ in drawn) > 30


@pytest.mark.parametrize("make", [gallery, dedup, report])
def test_a_page_fits_a_phone(published: Snapshot, tmp_path: Path, make) -> None:
    """The margins are empty, so nothing extends beyond either side."""
    page = tmp_path / "page.html"
    page.write_text(make(published), encoding="utf-8")
    image = browse(page, width=500, height=3000).screenshot
    ground = image.getpixel((2, 2))
    for x in (0, 5, 494, 499):
        assert {image.getpixel((x, y)) for y in range(0, 3000, 7)} == {ground}


def test_an_active_page_is_detected(tmp_path: Path) -> None:
    """A negative control: a page without these precautions is detected."""
    page = tmp_path / "page.html"
    source = "<title>a</title>" + "".join(f"<p>{text}</p>" for text in HOSTILE[:1])
    source += "<img src='http://example.com/leak.png'><script>console.log('I run')</script>"
    source += "<script>document.body.append(document.createElement('h1'))</script>"
    page.write_text(source.replace("alert(1)", "1"), encoding="utf-8")
    seen = browse(page)
    assert any("I run" in line for line in seen.console)
    assert b"leak.png" in seen.asked
    with pytest.raises(AssertionError):
        assert_inert(replace(seen, console=(), asked=b""), source)


def _luminance(colour: str) -> float:
    """Return the relative luminance, as defined in WCAG 2.1."""
    shares = [part / 255 for part in bytes.fromhex(colour[1:])]
    red, green, blue = (
        share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_letter_has_enough_contrast(scheme: str) -> None:
    """WCAG level AA for small text: a contrast of at least 4.5."""
    named = colours(scheme)
    grounds = {"ink": "page card frame", "soft": "page card frame", "accent": "page card",
               "page": "accent", "warn-ink": "warn", "good": "card", "bad": "card"}  # fmt: skip
    for letter, places in grounds.items():
        for ground in places.split():
            low, high = sorted((_luminance(named[letter]), _luminance(named[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (letter, ground)
