"""Find caption fields and read their values.

All kinds of source use this module, and the crawl stage drops blank captions, so captions are
handled in the same way in tables, lists, JSON files and tar archives.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator
from typing import Final

from mmindex.core.errors import DataError

# Names of the field, best first; the first group that exists in a source is used.
_FAMILIES: Final = ("caption", "text", "sentence", "raw", "comment", "alt", "prompt")
# caption, captions, CAPTION, caption_0, caption5, sentences_raw, raw_captions, alt_text
_FORM: Final = r"(?:raw_)?{}s?(?:_raw|_text)?(?:[ _.-]?(?P<number>\d{{1,3}}))?"
_PATTERNS: Final = tuple(re.compile(_FORM.format(name), re.IGNORECASE) for name in _FAMILIES)
_NESTING: Final = 4  # a list of structs of lists, and one level more


def caption_fields(names: Iterable[str]) -> tuple[str, ...]:
    """Return the fields or columns that contain captions; numbered ones in numeric order."""
    return _fields_among(tuple(names))


@functools.lru_cache(maxsize=256)  # cached, because the rows of a table have the same names
def _fields_among(names: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in _PATTERNS:
        found = [(match, name) for name in names if (match := pattern.fullmatch(name))]
        if found:
            found.sort(key=lambda one: int(one[0]["number"] or -1))
            return tuple(name for _, name in found)
    return ()


def caption_texts(value: object, where: str) -> list[str]:
    """Return the captions in a value: a text, an object with a caption field, or lists of these.

    Null and NaN are not captions; blank texts are removed by :func:`usable_captions`.

    Args:
        value: the value from JSON or Arrow.
        where: the file and line or column, for messages.

    Raises:
        DataError: the value is anything else: a number, bytes, an object without a caption field.
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
    """Return the captions that are not blank, each with its position in the source."""
    return ((place, text) for place, text in enumerate(captions) if text.strip())
