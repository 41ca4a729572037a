"""Print results as text, TSV, JSON lines or paths.

Texts come from untrusted corpora, so every format escapes control characters, terminal escapes and
text-direction overrides:

- text: visible escapes (``\\x1b``);
- TSV: reversible escapes (``\\t``, ``\\n``; a backslash is doubled). A cell with text of the
  corpus that begins with ``= + - @`` (or their full-width forms) or ``'`` gets a ``'`` in front, so
  that spreadsheets treat it as text, not as a formula;
- JSON lines: ``\\uXXXX``; letters of all scripts are unchanged;
- paths: the original bytes, for other programs; escaped only in a terminal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, TypeVar

import typer

from mmindex.core.display import inert_json, visible

T = TypeVar("T")
Form = Literal["text", "table", "json", "tsv", "paths"]
Cell = str | int | float | bool | None

_FORMULA = re.compile(r"[=+\-@'＝＋－＠＇]")


def emit(
    items: Iterable[T],
    form: Form,
    *,
    text: Callable[[Iterable[T]], Iterable[str]],
    json: Callable[[T], object],
    compact: bool = False,
    tsv: tuple[Sequence[str], Callable[[T], Iterable[Sequence[Cell]]]] = ((), lambda _item: ()),
    paths: Callable[[T], Iterable[str]] = lambda _item: (),
    end: str = "\n",
) -> None:
    """Print results as they arrive, in the requested format.

    Args:
        items: the results, in order.
        form: the format.
        text: returns the lines of text for all items.
        json: returns the JSON record of an item: plain values and containers.
        compact: omit spaces in JSON.
        tsv: the column names, and a function that returns the rows of an item.
        paths: returns the paths of an item; each is printed once per item.
        end: the terminator of a path.
    """
    if form == "paths":
        for item in items:
            for path in dict.fromkeys(paths(item)):
                _print_path(path, end)
        return
    for line in _lines(items, form, text, json, compact, tsv):
        # Programs get UTF-8 in any locale; a terminal gets the characters that it can show.
        human = form in {"text", "table"}
        encoding = (getattr(sys.stdout, "encoding", None) if human else None) or "utf-8"
        typer.echo(line.encode(encoding, "backslashreplace"))


def _lines(
    items: Iterable[T],
    form: Form,
    text: Callable[[Iterable[T]], Iterable[str]],
    json: Callable[[T], object],
    compact: bool,
    tsv: tuple[Sequence[str], Callable[[T], Iterable[Sequence[Cell]]]],
) -> Iterator[str]:
    if form == "json":
        for item in items:
            yield inert_json(json(item), compact=compact)
    elif form == "tsv":
        columns, rows = tsv
        for number, item in enumerate(items):
            if number == 0 and columns:
                yield "\t".join(columns)
            for row in rows(item):
                yield "\t".join(map(tsv_cell, row))
    else:
        yield from text(items)


def tsv_cell(value: Cell) -> str:
    """Return a cell: numbers with up to six decimals, text escaped as described in the module."""
    match value:
        case None:
            return ""
        case bool():
            return str(int(value))
        case int():
            return str(value)
        case float():
            return f"{value:.6f}"
    guard = "'" if _FORMULA.match(value) else ""
    return guard + visible(value.replace("\\", "\\\\"))


def labelled(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Return lines with a label and a text."""
    for label, text in rows:
        yield f"  {label:<12}{visible(text)}"


def _print_path(path: str, end: str) -> None:
    if sys.stdout.isatty():
        typer.echo(visible(path))
        return
    data = path.encode("utf-8", "surrogateescape")
    typer.echo(data + end.encode("ascii"), nl=False)
