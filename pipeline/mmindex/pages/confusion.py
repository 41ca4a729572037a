"""The confusion matrix as an image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from mmindex.core.display import visible
from mmindex.core.errors import CannotCreateError, UsageError, os_errors
from mmindex.core.fonts import plot_font
from mmindex.insight.metrics import LabelReport

# With more labels, the text is too small to read and figures in cells overlap.
MAX_PLOTTED: Final = 200
_WITH_NUMBERS: Final = 30
_LABEL_CHARACTERS: Final = 24
_DPI: Final = 120


def plot_confusion(report: LabelReport, path: Path) -> str:
    """Write the confusion matrix as a PNG: true labels in rows, predicted labels in columns.

    Colours are shares of each true label; numbers are counts.

    Returns:
        a note about characters that are in no installed font, or an empty text.

    Raises:
        UsageError: there are too many labels to draw.
        CannotCreateError: the folder does not exist.
        MmindexError: the file cannot be written.
    """
    count = len(report.classes)
    if count > MAX_PLOTTED:
        raise UsageError(
            f"{count} labels: a confusion matrix can have at most {MAX_PLOTTED}",
            "use `format=json` to see the figures",
        )
    if not path.parent.is_dir() or path.is_dir():
        raise CannotCreateError(f"{path}: cannot be created", "use a file in an existing folder")
    names = [_shortened(visible(one.label)) for one in report.classes]
    font = plot_font(names)
    figure = _draw(report, names, font.families)
    with os_errors(path), warnings.catch_warnings():
        # The note lists these letters once; matplotlib would warn whenever it draws one.
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font", UserWarning)
        figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})
    return font.note


def _draw(report: LabelReport, names: list[str], families: tuple[str, ...]) -> Figure:
    count = len(names)
    side = max(3.6, 0.34 * count + 1.6)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    support = np.maximum(report.confusion.sum(axis=1, keepdims=True), 1)
    shares = report.confusion / support
    image = axes.imshow(shares, cmap="Oranges", vmin=0, vmax=1)
    # Labels are plain text: "$" and "_" have no mathematical meaning.
    size = 9 if count <= _WITH_NUMBERS else 6
    style: dict[str, Any] = {"fontfamily": families, "fontsize": size, "parse_math": False}
    axes.set_xticks(range(count), names, rotation=90, **style)
    axes.set_yticks(range(count), names, **style)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"accuracy {100 * report.accuracy:.1f} % of {report.items:,}")
    if count <= _WITH_NUMBERS:
        for row, column in np.argwhere(report.confusion):
            axes.text(
                column,
                row,
                f"{report.confusion[row, column]}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if shares[row, column] > 0.6 else "black",
            )
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true label")
    return figure


def _shortened(text: str) -> str:
    return text if len(text) <= _LABEL_CHARACTERS else text[: _LABEL_CHARACTERS - 1] + "…"
