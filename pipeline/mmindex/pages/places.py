"""Names and links of images on pages.

A link never reveals the location of the user's files: it is relative to the page, and there is none
if it would contain the home folder or start at the root.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import quote_from_bytes

from markupsafe import Markup, escape

from mmindex.core.display import visible
from mmindex.core.resources import user_path
from mmindex.media.uris import split_uri
from mmindex.media.video import frame_uri, split_frame

_PARQUET = ".parquet"
# Possible line breaks in a name: after a folder, and inside words that are too long for a line.
_FOLDERS = re.compile(r"(?<=/)(?=.)")
_WORDS = re.compile(r"(?<=[_.\-:,;+=&?@()\[\]])(?=.)|(?<=[a-z])(?=[A-Z])")
_LONG = 20


@dataclass(frozen=True, slots=True)
class Place:
    """The location of an image on a page.

    Attributes:
        name: the file name; for a table row, the last part of its id.
        inside: the name of its archive or table; empty for a separate file.
        href: the link, or empty.
    """

    name: str
    inside: str = ""
    href: str = ""


def place_of(uri: str, image_id: str, page: Path | None = None) -> Place:
    """Return the name and link of an image.

    Args:
        uri: the location of its bytes.
        image_id: the id.
        page: the file of the page; None: no links.
    """
    path, inside = split_uri(uri)
    _, time_s = split_frame(uri)
    if time_s is not None:
        href = _link(path, page)
        # Players of browsers start at this time.
        href = frame_uri(href, time_s) if href else ""
        return Place(f"{PurePath(path).name} {clock(time_s)}", href=href)
    if inside is None:
        return Place(PurePath(path).name or image_id, href=_link(path, page))
    archive = PurePath(path).name
    member = image_id if archive.lower().endswith(_PARQUET) else inside
    return Place(member.rstrip("/").rpartition("/")[2] or image_id, archive)


def clock(time_s: float) -> str:
    """Return a time in a video as in players: ``1:02:03``."""
    minutes, seconds = divmod(int(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def folder_of(image_id: str) -> str:
    """Return the folder in an id: ``folder/Pictures/2019``."""
    return image_id.rpartition("/")[0] or image_id


def breakable(text: str) -> Markup:
    """Return a name with line breaks allowed between its words."""
    parts: list[str] = []
    for part in _FOLDERS.split(visible(text)):
        long = max(map(len, part.split(" "))) > _LONG
        parts += _WORDS.split(part) if long else [part]
    return Markup("<wbr>").join(escape(part) for part in parts)


def _link(path: str, page: Path | None) -> str:
    """Return ``path`` relative to the folder of the page, percent-encoded; empty if not allowed."""
    if page is None or not os.path.isabs(path):  # noqa: PTH117 # names may be no UTF-8
        return ""
    folder = os.path.abspath(page.parent)  # noqa: PTH100 # a browser follows no links either
    shared = Path(os.path.commonpath((folder, path)))
    if shared in user_path("~").parents or shared == Path(shared.anchor):
        return ""
    # With the dot, a file called "javascript:..." is still a file.
    return "./" + quote_from_bytes(os.fsencode(os.path.relpath(path, folder)))
