"""Crossmodal-3600: 3,600 photographs with captions in 36 languages.

``captions.jsonl`` has one object per image: ``image/key`` (the file name without ``.jpg``),
``image/locale``, and for each language an object with a list ``caption``. Source: A. Thapliyal et
al., Crossmodal-3600, EMNLP 2022 (https://google.github.io/crossmodal-3600/).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mmindex.core.display import visible
from mmindex.core.errors import DataError, NoInputError, os_errors
from mmindex.core.records import Expected, MetadataValue, NoteKind, SourceEvent
from mmindex.media.places import require_place
from mmindex.sources.annotations import decode_json, find_file, notes
from mmindex.sources.base import Kind, Place, Request, require_split
from mmindex.sources.listed import Listed, image_events

_CAPTIONS: Final = "captions.jsonl"
_IMAGES: Final = ("images", "imgs")
_KEY: Final = "image/key"
_LOCALE: Final = "image/locale"
_MAX_LINE: Final = 16 << 20  # bytes; a line of the release has about 20 kB

Row = Mapping[str, Any]


def read_xm3600(request: Request) -> Iterator[SourceEvent]:
    """Stream a local copy of Crossmodal-3600, in the order of its caption file.

    The column ``languages`` has the language of each caption, in order. A split is a language:
    ``#de`` reads only the captions in German, and all images.

    Raises:
        NoInputError: there are no captions, no images, or no such language.
        DataError: the caption file is damaged; the message names the line.
    """
    path, language = request.path, request.split
    captions = find_file(path, (_CAPTIONS,))
    if captions is None:
        raise NoInputError(f"{path}: {_CAPTIONS} not found", "expected it next to images/")
    known: set[str] = set()
    expected = 0
    for where, row, _ in _rows(captions):
        known |= _captions(row, where).keys()
        expected += 1
    require_split(language, known, path, "a split of this source is a language")
    place = require_place(path, _IMAGES, request.options.max_bytes)
    yield Expected(expected)
    replaced = 0
    for where, row, lost in _rows(captions):
        replaced += lost
        yield from image_events(place, _listed(row, language, where))
    yield from notes({NoteKind.LONE_SURROGATES_REPLACED: replaced})


def _rows(captions: Path) -> Iterator[tuple[str, Row, int]]:
    """Yield the place and content of each line, and the number of replaced lone surrogates."""
    with os_errors(captions), captions.open("rb") as file:
        number = 0
        while line := file.readline(_MAX_LINE + 1):
            number += 1
            where = f"{captions}:{number}"
            if len(line) > _MAX_LINE:
                raise DataError(f"{where}: longer than {_MAX_LINE:,} bytes, the limit")
            if line.strip():
                row, lost = decode_json(line, dict[str, Any], where)
                yield where, row, lost


def _captions(row: Row, where: str) -> dict[str, list[str]]:
    """Return the captions of a line by language, in its order."""
    found: dict[str, list[str]] = {}
    for name, value in row.items():
        if isinstance(value, dict) and "caption" in value:
            texts = value["caption"]
            if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
                raise DataError(f"{where}: `{visible(name)[:40]}`: `caption` is no list of texts")
            found[name] = texts
    return found


def _listed(row: Row, language: str | None, where: str) -> Listed:
    key, locale = row.get(_KEY), row.get(_LOCALE)
    if not isinstance(key, str) or not key:
        raise DataError(f"{where}: no `{_KEY}`")
    said = _captions(row, where)
    if language is not None:
        said = {language: said.get(language, [])}
    languages: MetadataValue = [name for name, texts in said.items() for _ in texts]
    return Listed(
        image_id=key,
        name=f"{key}.jpg",
        captions=[text for texts in said.values() for text in texts],
        metadata={
            "languages": languages,
            **({"locale": locale} if isinstance(locale, str) else {}),
        },
    )


KIND: Final = Kind(
    name="xm3600",
    place=Place.RELEASE,
    form="PATH[#LANGUAGE]",
    example="xm3600:~/xm3600",
    summary="Crossmodal-3600: `captions.jsonl` with captions in 36 languages, and `images/`",
    read=read_xm3600,
)
