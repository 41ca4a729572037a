"""Fit text into terminal columns; wide characters take two columns, combining accents none."""

from __future__ import annotations

import shutil
import sys

from wcwidth import wcswidth, wcwidth

from mmindex.core.display import visible

_MIN_WIDTH = 40
# Characters to examine per column: accents and joiners do not take a column.
_PER_COLUMN = 4


def terminal_width() -> int | None:
    """Return the width of the terminal, or None for files and pipes (no line is shortened)."""
    if not sys.stdout.isatty():
        return None
    return max(_MIN_WIDTH, shutil.get_terminal_size().columns)


def fit(text: str, width: int | None) -> str:
    """Return the escaped text, shortened with an ellipsis to at most ``width`` columns."""
    if width is None:
        return visible(text)
    # Accents take no column, so thousands of them on one letter must be cut as well.
    shown = visible(text[: _PER_COLUMN * width + 1])
    if len(shown) <= _PER_COLUMN * width and wcswidth(shown) <= width:
        return shown
    return _head(shown, width - 1) + "…"


def _head(text: str, width: int) -> str:
    used, kept = 0, 0
    for char in text[: _PER_COLUMN * width]:
        used += wcwidth(char)
        if used > width:
            break
        kept += 1
    return text[:kept]


def pad(text: str, width: int) -> str:
    """Pad an escaped text with spaces to ``width`` columns."""
    return text + " " * (width - wcswidth(text))
