"""An answer as one HTML file: opens from disk, needs no server, no network and no scripts.

Captions and names come from strangers. Everything is escaped by the template engine, hidden
characters are made visible, texts are isolated from each other's writing direction (``<bdi>``), and
a content security policy forbids whatever would slip through: no script, no fetch, one stylesheet
known by its hash. Pictures are small JPEGs made anew from pixels, so that nothing of the originals'
EXIF (GPS), comments or colour profiles travels with the page; no local path does either.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup
from PIL import Image

from mmindex.config import LimitsConfig
from mmindex.crawl.archive import read_uri
from mmindex.display import visible
from mmindex.errors import CannotCreateError, MmindexError, os_errors
from mmindex.images import ImageLimits, decode
from mmindex.records import Hit, ItemError, Modality
from mmindex.search.hits import captions_of
from mmindex.search.published import Published
from mmindex.search.query import Answer

# Twice the width of a card, for screens with two device pixels to a CSS pixel; some 30 KB each.
_THUMB_PIXELS = 512
_THUMB_QUALITY = 80
# What a card shows of texts without end.
_MAX_CAPTIONS = 5
_MAX_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Thumb:
    """A small picture as a ``data:`` address, or the reason why there is none."""

    address: str = ""
    width: int = 0
    height: int = 0
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """One hit as the page shows it."""

    rank: int
    score: float
    share: float  # of the best score, in percent: the length of the bar
    id: str
    thumb: Thumb
    found: str | None  # the caption that is the hit, when captions were searched
    captions: Sequence[str]
    more: int  # captions not shown


def gallery_page(published: Published, answer: Answer) -> str:
    """The HTML page of an answer.

    A picture that is gone or cannot be decoded is shown as a placeholder with the reason.

    Raises:
        DataError: the store's tables are damaged.
    """
    css = _template_file("gallery.css")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    page: str = (
        _environment()
        .get_template("gallery.html")
        .render(
            css=Markup(css),  # noqa: S704 - our own file
            policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'",
            answer=answer,
            noun=_noun(answer),
            picture=_thumb(answer.picture) if answer.picture is not None else None,
            cards=_cards(published, answer),
            encoder=published.encoder,
            manifest=published.manifest,
        )
    )
    return page


def write_page(path: Path, page: str) -> None:
    """Write a page so that ``path`` holds the old one or the whole new one.

    Raises:
        CannotCreateError: the folder does not exist, or ``path`` is a folder.
        MmindexError: no permission, or the disk is full.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise CannotCreateError(f"{path}: cannot be created", "name a file in an existing folder")
    aside = path.parent / f".{path.name[:100]}.{uuid.uuid4().hex}.tmp"
    with os_errors(path):
        try:
            with aside.open("xb") as file:
                file.write(page.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def _cards(published: Published, answer: Answer) -> list[Card]:
    captions: dict[str, list[str]] = {}
    if answer.to is Modality.IMAGE:
        images = [hit.image_id for hit in answer.hits]
        captions = captions_of(published.objects, published.manifest, images)
    best = max((hit.score for hit in answer.hits), default=0.0)
    return [_card(hit, best, captions.get(hit.image_id, [])) for hit in answer.hits]


def _card(hit: Hit, best: float, captions: Sequence[str]) -> Card:
    return Card(
        rank=hit.rank,
        score=hit.score,
        share=round(100 * max(0.0, hit.score) / best, 1) if best > 0 else 0.0,
        id=hit.id,
        thumb=_thumb(hit.uri),
        found=None if hit.caption is None else _shortened(hit.caption),
        captions=[_shortened(text) for text in captions[:_MAX_CAPTIONS]],
        more=max(0, len(captions) - _MAX_CAPTIONS),
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "…"


def _noun(answer: Answer) -> str:
    noun = "image" if answer.to is Modality.IMAGE else "caption"
    return noun if len(answer.hits) == 1 else f"{noun}s"


def _thumb(uri: str) -> Thumb:
    try:
        picture = decode(read_uri(uri), ImageLimits.of(LimitsConfig()))
    except ItemError as error:
        return Thumb(missing=f"{error.reason.replace('_', ' ')}: {error.detail}")
    except MmindexError as error:  # the archive that held it
        return Thumb(missing=error.message)
    picture.thumbnail((_THUMB_PIXELS, _THUMB_PIXELS), Image.Resampling.LANCZOS)
    # A new picture: Pillow would write the old one's comment into the file.
    clean = Image.new("RGB", picture.size)
    clean.paste(picture)
    buffer = io.BytesIO()
    clean.save(buffer, "JPEG", quality=_THUMB_QUALITY, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumb(f"data:image/jpeg;base64,{data}", picture.width, picture.height)


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_template_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _inert(value: object) -> object:
    """Every string that a template prints, unless it is markup of our own."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _template_file(name: str) -> str:
    return (resources.files("mmindex.search") / "templates" / name).read_text("utf-8")
