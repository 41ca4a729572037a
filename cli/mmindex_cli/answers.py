"""Output of ``query`` in each format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wcwidth import wcswidth

from mmindex.core.display import (
    answer_fields,
    hit_fields,
    probability_text,
    score_text,
    visible,
)
from mmindex_cli.fitting import fit, pad, terminal_width
from mmindex_cli.output import Cell, Form, emit

if TYPE_CHECKING:
    from mmindex.api import Hit, Hits

_QUERY_COLUMNS = ("query", "rank", "score", "id", "uri", "caption", "error")
_JUDGED_COLUMNS = ("probability", "weak")
_NOTHING = "nothing matches: no hit is better than those of queries without an answer"
_GAP = "  "
# The largest width of a requested column in a terminal, and the smallest width of a caption next to
# the path of its image.
_WIDEST = 24
_LEAST_CAPTION = 24


@dataclass(frozen=True, slots=True)
class View:
    """What to show for each hit in addition to the usual fields.

    Attributes:
        columns: names of additional image columns in the metadata of the hits.
        draw: draws the image with this uri in the terminal; None for no thumbnails.
        copies: whether to show the number of near-duplicates of each hit.
    """

    columns: Sequence[str] = ()
    draw: Callable[[str], str] | None = None
    copies: bool = False

    @property
    def more(self) -> Sequence[str]:
        """The names of additional fields of each hit."""
        return ("copies",) if self.copies else ()


def print_answers(
    answers: Iterable[Hits], form: Form, view: View | None = None, end: str = "\n"
) -> int:
    """Print results as they arrive and return the number of errors."""
    shown, failed = view or View(), 0

    def counted() -> Iterator[Hits]:
        nonlocal failed
        for hits in answers:
            failed += hits.error is not None
            yield hits

    emit(
        counted(),
        form,
        text=lambda some: answer_lines(some, shown),
        json=lambda hits: answer_record(hits, shown),
        tsv=(row_names(shown), lambda hits: answer_rows(hits, shown)),
        paths=lambda hits: (hit.uri for hit in hits),
        end=end,
    )
    return failed


def answer_record(hits: Hits, view: View) -> dict[str, object]:
    """Return the JSON record of a result."""
    columns = [hit.metadata for hit in hits] if view.columns else None
    record = answer_fields(hits.query, hits.to, hits.version, hits, columns)
    return record if hits.error is None else {**record, "error": hits.error}


def row_names(view: View) -> Sequence[str]:
    """Return the names of the columns of :func:`answer_rows`."""
    return (*_QUERY_COLUMNS, *_JUDGED_COLUMNS, *view.more, *view.columns)


def answer_rows(hits: Hits, view: View) -> Iterator[Sequence[Cell]]:
    """Return one row for each hit, and one row for a result without hits."""
    for hit in hits:
        further = (_nullable(hit.metadata[name]) for name in view.columns)
        fields = hit_fields(hit)
        more = [fields.pop(name) for name in view.more]
        judged = [fields.pop(name) for name in _JUDGED_COLUMNS]
        yield hits.query, *fields.values(), "", *judged, *more, *further
    if not hits:
        blank = ("",) * len((*_JUDGED_COLUMNS, *view.more, *view.columns))
        yield hits.query, *("",) * 5, hits.error, *blank


def answer_lines(answers: Iterable[Hits], view: View) -> Iterator[str]:
    """Return a table for each result, as wide as the terminal; only paths can be wider."""
    width = terminal_width()
    for number, hits in enumerate(answers):
        if number:
            yield ""
        heading = "captions for " if hits.to == "text" else "images for "
        yield heading + fit(hits.query, None if width is None else width - len(heading))
        if hits.error is not None:
            yield f"error: {visible(hits.error)}"
        elif not hits:
            yield _NOTHING if hits.nothing_good else "no hits"
        else:
            yield from _table(hits, view, width)
            if hits.nothing_good:
                yield _NOTHING


def _table(hits: Sequence[Hit], view: View, width: int | None) -> Iterator[str]:
    most = None if width is None else _WIDEST
    columns = {
        "rank": [f"{hit.rank:>4}" for hit in hits],
        "score": [f"{score_text(hit.score):>7}" for hit in hits],
        **_verdicts(hits),
        **({"copies": [f"{hit.copies:>6}" for hit in hits]} if view.copies else {}),
        **{name: [fit(_text(hit.metadata[name]), most) for hit in hits] for name in view.columns},
    }
    captions = [visible(hit.caption or "") for hit in hits]
    ids = [visible(hit.id) for hit in hits]
    paths = [_path(hit.uri, width) for hit in hits]
    below: Sequence[str] = ()
    if hits[0].caption is None:
        with_ids = {**columns, "id": ids, "path": paths}
        columns = with_ids if _fits(with_ids, width) else {**columns, "path": paths}
    elif width is None:
        columns |= {"id": ids, "caption": captions, "path": paths}
    else:
        room = width - _width(columns) - len(_GAP)
        beside = room - _column_width("path", paths) - len(_GAP)
        if beside >= _LEAST_CAPTION:
            columns |= {"caption": [fit(hit.caption or "", beside) for hit in hits], "path": paths}
        else:
            columns |= {"caption": [fit(hit.caption or "", room) for hit in hits]}
            below = [f"{'':<{_width({'rank': columns['rank']})}}{_GAP}{path}" for path in paths]
    lines = _aligned(columns)
    yield next(lines)
    for number, line in enumerate(lines):
        yield line
        yield from below[number : number + 1]
        if view.draw is not None:
            yield view.draw(hits[number].uri)


def _verdicts(hits: Sequence[Hit]) -> dict[str, Sequence[str]]:
    """Return the column with the probabilities, if they are known; weak hits are marked."""
    known = [hit.probability for hit in hits if hit.probability is not None]
    if not known:
        return {}
    cells = [
        f"{probability_text(probability):>5}{' weak' if hit.weak else ''}"
        for hit, probability in zip(hits, known, strict=True)
    ]
    return {"right": cells}


def _aligned(columns: Mapping[str, Sequence[str]]) -> Iterator[str]:
    widths = {name: _column_width(name, cells) for name, cells in columns.items()}
    right = {"rank", "score", "copies"}
    heads = [f"{n:>{w}}" if n in right else pad(visible(n), w) for n, w in widths.items()]
    yield _GAP.join(heads).rstrip()
    for row in zip(*columns.values(), strict=True):
        cells = (pad(cell, width) for cell, width in zip(row, widths.values(), strict=True))
        yield _GAP.join(cells).rstrip()


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    widths = [_column_width(name, cells) for name, cells in columns.items()]
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _column_width(name: str, cells: Sequence[str]) -> int:
    return max(wcswidth(visible(name)), *map(wcswidth, cells))


def _fits(columns: Mapping[str, Sequence[str]], width: int | None) -> bool:
    return width is None or _width(columns) <= width


def _path(uri: str, width: int | None) -> str:
    """Return a path to copy: not shortened, and relative to the working directory in a terminal."""
    if width is None or not os.path.isabs(uri):  # noqa: PTH117 # a uri need not be a path
        return visible(uri)
    folder = f"{Path.cwd()}/"
    return visible(uri.removeprefix(folder) if folder != "//" else uri)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _nullable(value: Any) -> str | int | float | bool | None:
    """Return a value as a cell: numbers and booleans unchanged, anything else as text."""
    return value if value is None or isinstance(value, bool | int | float) else _text(value)
