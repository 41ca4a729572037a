"""HTML pages that open from disk: no server, no network, no active foreign content.

The template engine escapes everything, hidden characters are made visible, and a content security
policy forbids requests and all stylesheets and scripts except our own, with known hashes; only the
map has a script. Thumbnails are JPEGs encoded from pixels, so the page contains no EXIF (GPS),
comments or colour profiles.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePath
from typing import Any, Protocol

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from mmindex.core.config import LimitsConfig
from mmindex.core.display import visible
from mmindex.core.durable import check_target, file_aside
from mmindex.core.errors import MmindexError, os_errors
from mmindex.core.records import ItemError
from mmindex.media.images import ImageLimits, decode, to_jpeg
from mmindex.media.uris import read_uri
from mmindex.models.resolve import LOCAL_DIR
from mmindex.pages.places import breakable
from mmindex.store.manifest import EncoderInfo

# Twice the width of a card, for screens with two device pixels per CSS pixel; about 30 KB each.
_THUMB_PIXELS = 512


@dataclass(frozen=True, slots=True)
class Thumb:
    """A thumbnail as a ``data:`` URL, or the reason why there is none."""

    address: str = ""
    width: int = 0
    height: int = 0
    missing: str = ""


class Renderer(Protocol):
    """Renders a page: :func:`render`, or a function of the server that adds its frame."""

    def __call__(self, template: str, styles: Sequence[str], /, **values: Any) -> str:
        """Return the page of a template with its style sheets and values."""


def render(template: str, styles: Sequence[str], /, *, script: str = "", **values: object) -> str:
    """Render a template as one file, with embedded style sheets, script and policy.

    Args:
        template: the name of a file in the templates folder.
        styles: the style sheets from the same folder; later ones override earlier ones.
        script: the script from the same folder; empty for none.
        values: the values, which can be untrusted.
    """
    css, code = stylesheet(styles), _file(script) if script else ""
    scripts = f"script-src {_digest(code)}; " if code else ""
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(css)}; {scripts}"
        "base-uri 'none'; form-action 'none'"
    )
    ours = {"css": Markup(css), "script": Markup(code)}  # noqa: S704 # our own files
    return _filled(template, policy=policy, **ours, **values)


def _digest(text: str) -> str:
    """Return the source expression of a content security policy for an embedded text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def render_linked(template: str, css_href: str, **values: object) -> str:
    """Render a template for a server that sends :func:`stylesheet` and the policy separately.

    Args:
        template: the name of a file in the templates folder.
        css_href: the URL of the style sheet.
        values: the values, which can be untrusted.
    """
    return _filled(template, css_href=css_href, **values)


def stylesheet(styles: Sequence[str]) -> str:
    """Return the concatenated style sheets of the templates folder."""
    return "".join(_file(name) for name in styles)


def _filled(template: str, **values: object) -> str:
    names = dict.fromkeys(("css", "css_href", "policy", "script"))
    defaults = {**names, "warnings": (), "frame": "page.html"}
    page: str = _environment().get_template(template).render(**{**defaults, **values})
    return page


def write_page(path: Path, page: str) -> None:
    """Write a page atomically.

    If ``path`` is not a regular file (``/dev/stdout``), it is written directly.

    Raises:
        CannotCreateError: the folder does not exist, or ``path`` is a folder.
        MmindexError: no permission, or the disk is full.
    """
    check_target(path)
    if path.exists() and not path.is_file():  # a pipe or a device cannot be replaced
        with os_errors(path):
            path.write_bytes(page.encode("utf-8"))
        return
    with os_errors(path), file_aside(path) as aside:
        aside.write_bytes(page.encode("utf-8"))


def shown_model(encoder: EncoderInfo) -> str:
    """Return the name of the model without its folders."""
    return shown_name(encoder.model, encoder.pretrained)


def shown_name(model: str, weights: str = "") -> str:
    """Return the name of a model and its weights without folders."""
    if model.startswith(LOCAL_DIR):
        model = LOCAL_DIR + PurePath(model.removeprefix(LOCAL_DIR)).name
    if PurePath(weights).is_absolute():
        weights = PurePath(weights).name
    return f"{model} {weights}".strip()


def thumbnail(uri: str, pixels: int) -> Image.Image | str:
    """Return the image at ``uri``, limited in width and height, or why it cannot be shown."""
    try:
        image = decode(read_uri(uri), ImageLimits.of(LimitsConfig()))
    except ItemError as error:
        return f"{error.reason.replace('_', ' ')}: {error.detail}"
    except MmindexError as error:  # its archive
        return error.message
    image.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    return image


def thumb(uri: str, pixels: int = _THUMB_PIXELS) -> Thumb:
    """Return a thumbnail of the image at ``uri``, or the reason why there is none.

    Args:
        uri: the location of the image.
        pixels: the limit for the longer side.
    """
    image = thumbnail(uri, pixels)
    if isinstance(image, str):
        return Thumb(missing=image)
    data = base64.b64encode(to_jpeg(image)).decode("ascii")
    return Thumb(f"data:image/jpeg;base64,{data}", image.width, image.height)


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
    """Escape every string in a template, except our own markup."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _exact(text: str) -> Markup:
    """Return a text for a form field, which is sent back unchanged."""
    return escape(text.encode("utf-8", "replace").decode())


def _file(name: str) -> str:
    return (resources.files("mmindex.pages") / "templates" / name).read_text("utf-8")
