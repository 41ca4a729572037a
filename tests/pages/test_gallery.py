"""The gallery page: safe, self-contained, and clear about missing images."""

from __future__ import annotations

import base64
import html
import io
import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pytest
from PIL import Image

from mmindex.core.errors import CannotCreateError
from mmindex.core.modality import Modality
from mmindex.pages.gallery import Request, gallery_page
from mmindex.pages.page import write_page
from mmindex.search.hits import Limit
from mmindex.search.parts import Part, Question
from mmindex.search.query import Answer, Session
from mmindex.store.snapshot import Snapshot, open_snapshot
from support import pages
from support.images import write_pngs
from support.models import FakeEncoder
from support.pages import Page, assert_self_contained
from support.stores import image_store, with_manifest

HOSTILE = [*pages.HOSTILE, '=HYPERLINK("http://evil")']
GPS_IFD = 0x8825


def photo_with_secrets(path: Path) -> None:
    """A rotated JPEG with GPS position, serial number, comment and colour profile."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to see it upright
    exif[0xA431] = "SERIAL-12345"
    exif.get_ifd(GPS_IFD)[1] = "N"
    image = Image.new("RGB", (60, 30), "red")
    image.save(path, exif=exif, comment=b"SECRET COMMENT", icc_profile=b"SECRET PROFILE" * 20)


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    paths = write_pngs(tmp_path / "p", len(HOSTILE))
    secret = tmp_path / "p" / "secret.jpg"
    photo_with_secrets(secret)
    return {**{f"hostile/<b>{n}": path for n, path in enumerate(paths)}, "secret": secret}


@pytest.fixture
def published(tmp_path: Path, images: dict[str, Path]) -> Snapshot:
    captions = [(f"hostile/<b>{n}", text) for n, text in enumerate(HOSTILE)]
    captions += [("secret", f"caption {n}") for n in range(7)]
    image_store(tmp_path / "store", images, captions, FakeEncoder())
    return open_snapshot(tmp_path / "store")


def answer_to(published: Snapshot, text: str, to: Modality = Modality.IMAGE) -> Answer:
    with Session(published, FakeEncoder) as session:
        return session.text(text, to, Limit(100))


@pytest.mark.parametrize("to", list(Modality))
def test_hostile_texts_are_shown_and_inert(published: Snapshot, to: Modality) -> None:
    """No caption, id or query adds a tag, an attribute or a hidden character to the page."""
    page = gallery_page(published, answer_to(published, HOSTILE[0] + "\u202e", to))
    seen = Page(page)
    assert {tag for tag, _ in seen.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "main", "footer"),
        *("div", "p", "h1", "span", "bdi", "ol", "ul", "li", "figure", "figcaption", "img"),
        *("svg", "rect", "details", "summary", "strong", "wbr"),
    }
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "mine now" not in "".join(seen.texts["h1"])
    shown = seen.texts["bdi"]
    for text in ("<script>alert(1)</script>", "&lt;b&gt; is not bold", "{{ 7 * 7 }} {% raw %}"):
        assert text in shown
    assert "right\\u202eto left \\u2066 isolated" in shown
    assert "bell\\x07 escape\\x1b[2J null\\x00 line\\nbreak" in shown
    assert "half \\ud83d of a face" in shown
    assert "一只猫坐在窗台上" in shown
    page.encode("utf-8")


def test_texts_are_isolated_from_each_others_writing_direction(published: Snapshot) -> None:
    page = gallery_page(published, answer_to(published, "عربي"))
    seen = Page(page)
    assert "عربي" in seen.texts["bdi"]
    for text in ("عربي نص", "javascript:alert(3)"):
        safe = html.escape(text)
        # An attribute has its own text direction.
        alone = page.count(f"<bdi>{safe}</bdi>") + page.count(f'alt="{safe}"')
        assert page.count(safe) == alone > 0


def test_the_page_is_self_contained_and_allows_no_script(published: Snapshot) -> None:
    page = gallery_page(published, answer_to(published, "red"))
    assert_self_contained(page)
    assert Page(page).named("img")
    assert not Page(page).named("a")


def test_thumbnails_contain_only_upright_pixels(
    published: Snapshot, images: dict[str, Path]
) -> None:
    """No EXIF (GPS), comment or colour profile of the original is in the page."""
    assert b"SECRET" in images["secret"].read_bytes()
    with Session(published, FakeEncoder) as session:
        page = gallery_page(published, session.image("secret", Modality.IMAGE, Limit(1)))
    asked, found = Page(page).named("img")
    assert asked["src"] == found["src"]
    assert (found["width"], found["height"]) == ("30", "60")
    data = base64.b64decode((found["src"] or "").partition(",")[2])
    assert b"SECRET" not in data
    assert b"SERIAL" not in data
    with Image.open(io.BytesIO(data)) as thumb:
        assert thumb.format == "JPEG"
        assert thumb.size == (30, 60)
        assert not dict(thumb.getexif())
        assert not {"exif", "icc_profile", "comment"} & thumb.info.keys()


def test_the_page_contains_no_local_path(published: Snapshot, tmp_path: Path) -> None:
    """Nor that of the query image or of the model; ids stay complete."""
    image = str(tmp_path / "p" / "secret.jpg")
    encoder = msgspec.structs.replace(published.encoder, model=f"local-dir:{tmp_path}/mine")
    travelling = with_manifest(published, encoder=encoder)
    with Session(published, FakeEncoder) as session:
        by_file = session.image(image, Modality.IMAGE, Limit(3))
        by_id = session.image("hostile/<b>0", Modality.IMAGE, Limit(3))
        parts = (Part(Modality.TEXT, "/r/pics red"), Part(Modality.IMAGE, image))
        mixed = session.ask(Question(parts), Modality.IMAGE, Limit(3))
    asked = {"red": answer_to(published, "red"), "secret.jpg": by_file, "hostile/<b>0": by_id}
    for title, answer in {**asked, "/r/pics red + secret.jpg": mixed}.items():
        page = gallery_page(travelling, answer)
        assert str(tmp_path) not in page
        assert "local-dir:mine" in page
        assert Page(page).texts["h1"] == [""]
        assert title in Page(page).texts["bdi"]


def test_a_page_is_written_to_a_pipe_directly(tmp_path: Path) -> None:
    """Only files are replaced; otherwise, /dev/null would be lost when run as root."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_page(pipe, "page")
    assert os.read(reader, 100) == b"page"
    os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_missing_or_broken_image_is_a_placeholder_with_the_reason(
    published: Snapshot, images: dict[str, Path]
) -> None:
    images["hostile/<b>0"].unlink()
    images["hostile/<b>1"].write_bytes(b"<html></html>")
    with Session(published, FakeEncoder) as session:
        answer = session.text("red", Modality.IMAGE, Limit(100))
    page = gallery_page(published, answer)
    assert len(Page(page).named("img")) == len(answer.hits) - 2
    assert "missing: No such file or directory" in page
    assert "not an image: " in page


def test_every_hit_is_shown_with_rank_score_id_and_captions(published: Snapshot) -> None:
    answer = answer_to(published, "a red thing")
    page = gallery_page(published, answer)
    seen = Page(page)
    for hit in answer.hits:
        assert f'<span class="rank">{hit.rank}</span>' in page
        assert f"<span>{hit.score:.4f}</span>" in page
        assert hit.id in seen.texts["bdi"]
    assert "caption 0" in seen.texts["bdi"]
    assert "caption 4" in seen.texts["bdi"]
    assert "caption 5" not in seen.texts["bdi"]
    assert "6 more captions" in page
    assert "version 1" in page
    assert "fake seed-0" in page


def test_very_long_captions_and_queries_are_cut(tmp_path: Path) -> None:
    [path] = write_pngs(tmp_path / "p", 1)
    image_store(tmp_path / "s", {"a": path}, [("a", "word " * 200_000)], FakeEncoder())
    published = open_snapshot(tmp_path / "s")
    page = gallery_page(published, answer_to(published, "red " * 100_000))
    assert len(page) < 30_000


def test_a_name_links_to_its_image_relative_to_the_page(
    published: Snapshot, tmp_path: Path, images: dict[str, Path]
) -> None:
    images["hostile/<b>0"].unlink()
    request = Request(page=tmp_path / "pages" / "red.html")
    page = gallery_page(published, answer_to(published, "red"), request)
    assert_self_contained(page)
    assert str(tmp_path) not in page
    links = {link["href"] for link in Page(page).named("a")}
    there = {path for path in images.values() if path.exists()}
    assert {(tmp_path / "pages" / unquote(link or "")).resolve() for link in links} == there


def test_files_with_the_same_bytes_are_one_card(tmp_path: Path) -> None:
    paths = write_pngs(tmp_path / "p", 3)
    copy = tmp_path / "p" / "copy <b>.png"
    copy.write_bytes(paths[0].read_bytes())
    images = {"a": paths[0], "b": paths[1], "c": paths[2], "d/copy": copy}
    image_store(tmp_path / "s", images, [("b", "red"), ("c", "red")], FakeEncoder())
    published = open_snapshot(tmp_path / "s")
    seen = Page(page := gallery_page(published, answer_to(published, "red")))
    assert len(seen.named("figure")) == 3
    assert "3 different images in 4 files" in page
    assert "× 2" in page
    assert "1 exact copy" in page
    assert "d/copy" in seen.texts["bdi"]
    # Captions: the same words of two images.
    page = gallery_page(published, answer_to(published, "red", Modality.TEXT))
    assert "1 different caption in 2 places" in page


def test_a_bar_shows_the_score_and_not_the_rank(published: Snapshot) -> None:
    def bars(k: int, min_score: float) -> list[str | None]:
        with Session(published, FakeEncoder) as session:
            answer = session.image("secret", Modality.IMAGE, Limit(k))
        shown = tuple(hit for hit in answer.hits if hit.score < min_score)
        page = gallery_page(published, replace(answer, hits=shown))
        return [one["width"] for one in Page(page).named("rect") if one["class"] == "bar"]

    everything, without_best = bars(5, 2.0), bars(5, 0.999)
    assert everything[0] == "100.0"
    assert 0 < len(without_best) < 5
    assert without_best == everything[-len(without_best) :]


def test_a_page_without_hits_gives_reasons_and_advice(published: Snapshot) -> None:
    nothing = Answer("red", Modality.IMAGE, 1, ())
    page = gallery_page(published, nothing, Request(0.99, "width < 50 and '<b>' = '<b>'"))
    assert f"0 of {len(HOSTILE) + 1} images" in page
    assert "score of 0.99 or more" in page
    assert "Lower or remove the score limit" in page
    assert "Remove the condition" in page
    assert_self_contained(page)
    page = gallery_page(published, nothing)
    assert "condition" not in page
    assert "other words" in page


def test_no_hits_and_an_untrained_model_are_reported(published: Snapshot) -> None:
    answer = Answer("red", Modality.IMAGE, 1, ())
    assert "No results" in gallery_page(published, answer)
    assert "untrained" not in gallery_page(published, answer)
    untrained = msgspec.structs.replace(published.encoder, trained=False)
    page = gallery_page(with_manifest(published, encoder=untrained), answer)
    assert "untrained" in page


def test_a_page_replaces_the_old_one_completely(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    write_page(target, "old")
    write_page(target, "neu ☃")
    assert target.read_text("utf-8") == "neu ☃"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_page_that_cannot_be_created_says_so(tmp_path: Path) -> None:
    for target in (tmp_path / "nowhere" / "page.html", tmp_path):
        with pytest.raises(CannotCreateError):
            write_page(target, "page")
    assert list(tmp_path.iterdir()) == []
