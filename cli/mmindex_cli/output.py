"""How answers are printed: a table for people, TSV and JSON lines for programs.

Every text shown comes from somebody's corpus, so in each form control characters, terminal escapes
and text-direction overrides are written as escapes:

- table: made visible (``\\x1b``), cut to the terminal's width; wide characters stay aligned;
- TSV: escapes that can be undone (``\\t``, ``\\n``; a backslash is doubled). A cell of the
  corpus's own text that begins with ``= + - @`` (or their full-width forms) or ``'`` gets one ``'``
  in front: spreadsheets then take it for text, not for a formula;
- JSON lines: ``\\uXXXX``, as JSON has it; letters of all scripts stay as they are.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import typer
from wcwidth import wcswidth, wcwidth

from mmindex.core.display import inert_json, visible

if TYPE_CHECKING:
    from mmindex.core.records import Hit
    from mmindex.search.query import Answer

AnswerFormat = Literal["table", "json", "tsv"]

# Columns that an id may take of a terminal's width; what it leaves goes to the caption or uri.
_ID_SHARE = 0.45
_MIN_WIDTH = 40
# Characters looked at for each column of room: accents and joiners take none of their own.
_PER_COLUMN = 4
_TSV_HEADER = ("query", "rank", "score", "id", "uri", "caption", "error")
_FORMULA = re.compile(r"[=+\-@'＝＋－＠＇]")


def print_answers(answers: Iterable[Answer], form: AnswerFormat) -> int:
    """Print answers as they come; returns how many of them are errors."""
    lines = _FORMS[form]
    failed = 0
    for number, answer in enumerate(answers):
        failed += answer.error is not None
        for line in lines(answer, number):
            print_line(line, form)
    return failed


def print_line(line: str, form: AnswerFormat) -> None:
    """Print one line of results, which must be inert already."""
    # Programs get UTF-8 whatever the locale; a terminal gets what it can show.
    encoding = "utf-8" if form != "table" else (getattr(sys.stdout, "encoding", None) or "utf-8")
    typer.echo(line.encode(encoding, "backslashreplace"))


def json_lines(answer: Answer, _number: int = 0) -> Iterator[str]:
    """One JSON object for one answer."""
    record: dict[str, object] = {
        "query": answer.query,
        "to": str(answer.to),
        "version": answer.version,
        "hits": [
            {
                "rank": hit.rank,
                "score": round(hit.score, 6),
                "id": hit.id,
                "uri": hit.uri,
                "caption": hit.caption,
            }
            for hit in answer.hits
        ],
    }
    if answer.error is not None:
        record["error"] = answer.error
    yield inert_json(record)


def tsv_lines(answer: Answer, number: int = 0) -> Iterator[str]:
    """One line for each hit, and one for an answer without hits; a header before the first."""
    if number == 0:
        yield "\t".join(_TSV_HEADER)
    query = tsv_cell(answer.query)
    for hit in answer.hits:
        score = f"{hit.score:.6f}"
        texts = (tsv_cell(hit.id), tsv_cell(hit.uri), tsv_cell(hit.caption or ""))
        yield "\t".join((query, str(hit.rank), score, *texts, ""))
    if not answer.hits:
        yield "\t".join((query, "", "", "", "", "", tsv_cell(answer.error or "")))


def tsv_cell(text: str) -> str:
    """A cell of somebody's text, escaped; see this module's description."""
    guard = "'" if _FORMULA.match(text) else ""
    plain = text.replace("\\", "\\\\")
    return guard + visible(plain)


def table_lines(answer: Answer, number: int = 0) -> Iterator[str]:
    """A small table for one answer, as wide as the terminal at most."""
    if number:
        yield ""
    width = _terminal_width()
    heading = "captions for " if answer.to == "text" else "images for "
    room = None if width is None else width - len(heading)
    yield heading + fit(answer.query, room)
    if answer.error is not None:
        yield f"error: {visible(answer.error)}"
    elif not answer.hits:
        yield "no hits"
    else:
        yield from _rows(answer.hits, width)


def _rows(hits: Sequence[Hit], width: int | None) -> Iterator[str]:
    last = "caption" if hits[0].caption is not None else "uri"
    rank_width = max(4, len(str(hits[-1].rank)))
    room = None if width is None else int((width - rank_width) * _ID_SHARE)
    ids = [fit_end(hit.id, room) for hit in hits]
    id_width = max(2, *(wcswidth(text) for text in ids))
    rest = None if width is None else width - rank_width - id_width - len("  -0.0000    ")
    yield f"{'rank':>{rank_width}}    score  {pad('id', id_width)}  {last}"
    for hit, text in zip(hits, ids, strict=True):
        tail = fit_end(hit.uri, rest) if hit.caption is None else fit(hit.caption, rest)
        yield f"{hit.rank:>{rank_width}}  {hit.score:7.4f}  {pad(text, id_width)}  {tail}".rstrip()


def _terminal_width() -> int | None:
    """Columns of the terminal; None where output goes elsewhere: a file keeps whole lines."""
    if not sys.stdout.isatty():
        return None
    return max(_MIN_WIDTH, shutil.get_terminal_size().columns)


def fit(text: str, width: int | None) -> str:
    """The text made visible, cut with an ellipsis where it is wider than ``width`` columns."""
    if width is None:
        return visible(text)
    # Accents take no column: a pile of thousands on one letter is cut too.
    shown = visible(text[: _PER_COLUMN * width + 1])
    if len(shown) <= _PER_COLUMN * width and wcswidth(shown) <= width:
        return shown
    return _head(shown, width - 1) + "…"


def fit_end(text: str, width: int | None) -> str:
    """As :func:`fit`, but cut at the front: the end is what tells ids apart."""
    if width is None:
        return visible(text)
    shown = visible(text[-_PER_COLUMN * width - 1 :])
    if len(shown) <= _PER_COLUMN * width and wcswidth(shown) <= width:
        return shown
    return "…" + _head(shown[::-1], width - 1)[::-1]


def _head(text: str, width: int) -> str:
    used, kept = 0, 0
    for char in text[: _PER_COLUMN * width]:
        used += wcwidth(char)
        if used > width:
            break
        kept += 1
    return text[:kept]


def pad(text: str, width: int) -> str:
    """Fill a visible text with spaces up to ``width`` columns."""
    return text + " " * (width - wcswidth(text))


_FORMS: dict[AnswerFormat, Callable[[Answer, int], Iterator[str]]] = {
    "table": table_lines,
    "json": json_lines,
    "tsv": tsv_lines,
}
