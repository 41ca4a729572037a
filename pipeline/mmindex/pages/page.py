"""Pages that open from disk: no server, no network, no scripts, nothing of a stranger's acts.

Everything is escaped by the template engine, hidden characters are made visible, and a content
security policy forbids whatever would slip through: no script, no fetch, one stylesheet known by
its hash. Images are small JPEGs made anew from pixels, so that nothing of the originals' EXIF
(GPS), comments or colour profiles travels with the page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePath

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from mmindex.core.config import LimitsConfig
from mmindex.core.display import visible
from mmindex.core.errors import CannotCreateError, MmindexError, os_errors
from mmindex.core.records import ItemError
from mmindex.media.images import ImageLimits, decode, to_jpeg
from mmindex.media.uris import read_uri
from mmindex.models.resolve import LOCAL_DIR
from mmindex.pages.places import breakable
from mmindex.store.manifest import EncoderInfo

# Twice the width of a card, for screens with two device pixels to a CSS pixel; some 30 KB each.
_THUMB_PIXELS = 512


@dataclass(frozen=True, slots=True)
class Thumb:
    """A small image as a ``data:`` address, or the reason why there is none."""

    address: str = ""
    width: int = 0
    height: int = 0
    missing: str = ""


def render(template: str, styles: Sequence[str], **values: object) -> str:
    """Fill a template: one file, with its style sheets and its policy inside.

    Args:
        template: the name of a file in the templates folder.
        styles: its style sheets, from the same folder; later ones win.
        values: what it shows; texts may be anybody's.
    """
    css = stylesheet(styles)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return _filled(template, css=Markup(css), policy=policy, **values)  # noqa: S704 # our own file


def render_linked(template: str, css_href: str, **values: object) -> str:
    """Fill a template for a server that sends :func:`stylesheet` and the policy beside it.

    Args:
        template: the name of a file in the templates folder.
        css_href: where the style sheet is.
        values: what it shows; texts may be anybody's.
    """
    return _filled(template, css_href=css_href, **values)


def stylesheet(styles: Sequence[str]) -> str:
    """Style sheets of the templates folder in one."""
    return "".join(_file(name) for name in styles)


def _filled(template: str, **values: object) -> str:
    names = {"css": None, "css_href": None, "policy": None, "warnings": ()}
    page: str = _environment().get_template(template).render(**{**names, **values})
    return page


def write_page(path: Path, page: str) -> None:
    """Write a page so that ``path`` holds the old one or the whole new one.

    Into what is not a regular file (``/dev/stdout``) it is written as it comes.

    Raises:
        CannotCreateError: the folder does not exist, or ``path`` is a folder.
        MmindexError: no permission, or the disk is full.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise CannotCreateError(f"{path}: cannot be created", "use a file in an existing folder")
    if path.exists() and not path.is_file():  # a pipe or a device: nothing to replace
        with os_errors(path):
            path.write_bytes(page.encode("utf-8"))
        return
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


def shown_model(encoder: EncoderInfo) -> str:
    """The model's name without the folders that it lies in."""
    model, weights = encoder.model, encoder.pretrained
    if model.startswith(LOCAL_DIR):
        model = LOCAL_DIR + PurePath(model.removeprefix(LOCAL_DIR)).name
    if PurePath(weights).is_absolute():
        weights = PurePath(weights).name
    return f"{model} {weights}".strip()


def thumbnail(uri: str, pixels: int) -> Image.Image | str:
    """What lies at ``uri``, at most so many pixels wide and high, or why it cannot be shown."""
    try:
        picture = decode(read_uri(uri), ImageLimits.of(LimitsConfig()))
    except ItemError as error:
        return f"{error.reason.replace('_', ' ')}: {error.detail}"
    except MmindexError as error:  # the archive that held it
        return error.message
    picture.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    return picture


def thumb(uri: str, pixels: int = _THUMB_PIXELS) -> Thumb:
    """A small image of what lies at ``uri``, or the reason why there is none.

    Args:
        uri: where the image's bytes are.
        pixels: its longest side, at most.
    """
    picture = thumbnail(uri, pixels)
    if isinstance(picture, str):
        return Thumb(missing=picture)
    data = base64.b64encode(to_jpeg(picture)).decode("ascii")
    return Thumb(f"data:image/jpeg;base64,{data}", picture.width, picture.height)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    environment.filters["exact"] = _exact
    return environment


def _inert(value: object) -> object:
    """Every string that a template prints, unless it is markup of our own."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _exact(text: str) -> Markup:
    """A text as a form holds it: sent back as it came."""
    return escape(text.encode("utf-8", "replace").decode())


def _file(name: str) -> str:
    return (resources.files("mmindex.pages") / "templates" / name).read_text("utf-8")
