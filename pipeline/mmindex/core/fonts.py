"""Choose installed fonts that contain the characters in plots.

Matplotlib's default font (DejaVu Sans) contains Latin, Greek, Cyrillic, Arabic, Hebrew and other
scripts, but not Chinese, Japanese or Korean, which would be drawn as boxes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib import font_manager

# Tried in this order: the first installed font that has a missing letter is used.
_FAMILIES = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK TC",
    "Noto Sans CJK KR",
    "Noto Serif CJK SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans",
    "Yu Gothic",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
)
_DEFAULT = "DejaVu Sans"
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class PlotFont:
    """The fonts for a plot.

    Attributes:
        families: for matplotlib's ``font.family`` or ``fontfamily``; the first family with a
            character draws it.
        note: the characters that are drawn as boxes, and the remedy, or empty.
    """

    families: tuple[str, ...]
    note: str


def plot_font(texts: Iterable[str]) -> PlotFont:
    """Choose installed fonts for these texts."""
    missing = {ord(char) for text in texts for char in text if not char.isspace()}
    missing -= _letters(_DEFAULT)
    families = [_DEFAULT]
    for family in _FAMILIES:
        if not missing:
            break
        if found := missing & _letters(family):
            families.append(family)
            missing -= found
    if not missing:
        return PlotFont(tuple(families), "")
    shown = "".join(chr(code) for code in sorted(missing)[:_SHOWN])
    return PlotFont(
        tuple(families),
        f"no installed font contains {len(missing)} of the characters ({shown}); they are drawn as "
        "boxes. Install a font such as fonts-noto-cjk.",
    )


@functools.cache
def _letters(family: str) -> frozenset[int]:
    """Return the characters in a font family; empty if it is not installed."""
    paths: Sequence[str] = [
        entry.fname for entry in font_manager.fontManager.ttflist if entry.name == family
    ]
    if not paths:
        return frozenset()
    return frozenset(font_manager.get_font(paths[0]).get_charmap())
