"""Make untrusted text (captions, ids, file names) safe to display.

Captions can contain terminal escapes, right-to-left overrides, line breaks and lone surrogates.
Tables and pages show such characters as escapes, so that they are visible and have no effect.
Letters of every script are unchanged.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmindex.core.records import NamedHit

# Format characters that writing systems need: without joiners, Persian, Hindi and emoji families
# are not displayed correctly. They have no effect outside their own word.
_JOINERS = "\u200c\u200d"
# Cc control, Cf format (bidi overrides, tags, BOM), Cs half surrogates, Co private, Cn unassigned,
# Zl and Zp line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# For plain ASCII text, the most common case, no character needs to be checked.
_PLAIN = re.compile(r"[ -~]*")
# Characters that JSON allows unescaped but that have an effect in a terminal.
_BARE_IN_JSON = re.compile(r"[^\x20-\x7e]")


def is_hidden(char: str) -> bool:
    """Return whether a character is a control or formatting character."""
    return char not in _JOINERS and unicodedata.category(char) in _HIDDEN


def escaped(char: str) -> str:
    """Return a character as an escape as in Python and JSON: ``\\n``, ``\\x1b``, ``\\u202e``."""
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: str) -> str:
    """Return the text with hidden characters escaped: one line, safe in a terminal."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(escaped(char) if is_hidden(char) else char for char in text)


def hit_fields(hit: NamedHit) -> dict[str, Any]:
    """Return the fields of a hit in every output format: names and values, in column order."""
    fields = {
        "rank": hit.rank,
        "score": round(hit.score, 6),
        "id": hit.id,
        "uri": hit.uri,
        "caption": hit.caption,
    }
    return fields if hit.copies is None else {**fields, "copies": hit.copies}


def answer_fields(
    query: str,
    to: str,
    version: int,
    hits: Sequence[NamedHit],
    columns: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return an answer in JSON form; ``columns`` has additional values of each hit's image."""
    records = [hit_fields(hit) for hit in hits]
    if columns is not None:
        for record, values in zip(records, columns, strict=True):
            record["columns"] = json_fields(values)
    return {"query": query, "to": str(to), "version": version, "hits": records}


def json_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row in JSON form, with times in ISO 8601."""
    return {name: _json_value(value) for name, value in values.items()}


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | list):
        return value
    return value.isoformat() if isinstance(value, date) else str(value)


def score_text(score: float) -> str:
    """Format a cosine similarity for terminals and pages."""
    return f"{score:.4f}"


def inert_json(value: object, *, compact: bool = False) -> str:
    """Encode JSON on one line that is safe in a terminal; ``compact`` omits spaces."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":") if compact else None)
    # Such characters occur only inside JSON strings, where the escape has the same meaning.
    return _BARE_IN_JSON.sub(
        lambda match: json.dumps(match[0])[1:-1] if is_hidden(match[0]) else match[0], text
    )
