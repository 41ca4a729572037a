"""Caption texts, whatever they stand in: which fields hold them, and what a value may be.

Every kind of source names its captions and reads their values here, and the crawl stage drops the
blank ones, so that a caption means the same in a table, a list, a JSON file and a tar.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator
from typing import Final

from mmindex.core.errors import DataError

# Names of the field, best first; a source's captions are those of the first family it has.
_FAMILIES: Final = ("caption", "text", "sentence", "raw", "comment", "alt", "prompt")
# caption, captions, CAPTION, caption_0, caption5, sentences_raw, raw_captions, alt_text
_FORM: Final = r"(?:raw_)?{}s?(?:_raw|_text)?(?:[ _.-]?(?P<number>\d{{1,3}}))?"
_PATTERNS: Final = tuple(re.compile(_FORM.format(name), re.IGNORECASE) for name in _FAMILIES)
_NESTING: Final = 4  # a list of structs of lists, and one to spare


def caption_fields(names: Iterable[str]) -> tuple[str, ...]:
    """Those of some fields or columns that hold captions; numbered ones in the order of numbers."""
    return _fields_among(tuple(names))


@functools.lru_cache(maxsize=256)  # rows of a table share their names
def _fields_among(names: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in _PATTERNS:
        found = [(match, name) for name in names if (match := pattern.fullmatch(name))]
        if found:
            found.sort(key=lambda one: int(one[0]["number"] or -1))
            return tuple(name for _, name in found)
    return ()


def caption_texts(value: object, where: str) -> list[str]:
    """The captions in a value: a text, a list, an object with a caption field, or lists of them.

    Null and NaN are no caption; blank texts are left for :func:`usable_captions`.

    Args:
        value: as JSON or Arrow give it.
        where: the file and line or column, for the message.

    Raises:
        DataError: it is something else: a number, bytes, an object without a caption field.
    """
    return list(_texts(value, where, _NESTING))


def _texts(value: object, where: str, depth: int) -> Iterator[str]:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return
    if isinstance(value, str):
        yield value
        return
    if depth:
        if isinstance(value, list | tuple):
            for one in value:
                yield from _texts(one, where, depth - 1)
            return
        fields = caption_fields(value) if isinstance(value, dict) else ()
        if isinstance(value, dict) and fields:
            for name in fields:
                yield from _texts(value[name], where, depth - 1)
            return
    raise DataError(
        f"{where}: not a caption: {type(value).__name__} {str(value)[:60]!r}",
        "a caption must be a text, a list of texts, or an object with a field such as `raw`,"
        " `text` or `caption`",
    )


def usable_captions(captions: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Captions that say something, each with its place among all that the source gives."""
    return ((place, text) for place, text in enumerate(captions) if text.strip())
