"""Draw an explanation over its image."""

from __future__ import annotations

import io
import unicodedata
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from mmindex.core.display import score_text, visible
from mmindex.core.errors import os_errors
from mmindex.core.fonts import plot_font
from mmindex.core.progress import get_logger
from mmindex.insight.explain import Explanation, Method, explain
from mmindex.models.encoder import Float32
from mmindex.models.preprocess import PreprocessSpec, to_pixels
from mmindex.search.vectorize import Vectorizer

Box = tuple[float, float, float, float]

_MOST_PIXELS: Final = 1_024  # pixels of the longer side: shows details, and is small enough to send
_COLOURS: Final = "inferno"
_STRONGEST: Final = 0.75  # opacity of the strongest point: the image stays visible below it
_UNSEEN: Final = 0.35  # brightness outside the model's view
# Below the image: the text, its score and the colour legend.
_LEGEND_PIXELS: Final = 76
_LEAST_WIDTH: Final = 360
_DPI: Final = 100
_MARGIN: Final = 14
_SCALE_PIXELS: Final = 140
_INK, _PAPER, _SOFT = "#211f1c", "#ffffff", "#66625b"
_GRAY: Final = 0.5  # how much colour points with low values lose, so that the map stands out


def seen_box(size: tuple[int, int], spec: PreprocessSpec) -> Box:
    """Return the part of an image that the model sees: left, top, right, bottom in pixels.

    It extends beyond the edges of the image if the model's view is padded.

    Args:
        size: width and height of the image.
        spec: the preprocessing of the model.
    """
    width, height = size
    if spec.resize_mode == "squash":
        return 0.0, 0.0, float(width), float(height)
    choose = max if spec.resize_mode == "longest" else min
    # Pixels of the image per pixel of the view.
    ratio = choose(width / spec.width, height / spec.height)
    seen_width, seen_height = spec.width * ratio, spec.height * ratio
    left, top = (width - seen_width) / 2, (height - seen_height) / 2
    return left, top, left + seen_width, top + seen_height


def overlay(image: Image.Image, heat: Float32, spec: PreprocessSpec) -> Image.Image:
    """Draw a heat map over an image.

    Args:
        image: RGB, upright.
        heat: float32 (rows, columns) from 0 to 1 over the model's view.
        spec: the preprocessing of the model.

    Returns:
        RGB, at most 1,024 pixels on the longer side. Parts with high values are bright; parts
        outside the model's crop are dark.
    """
    box = seen_box(image.size, spec)
    scale = min(1.0, _MOST_PIXELS / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    shown = np.asarray(image.resize(size, Image.Resampling.LANCZOS), dtype=np.float32) / 255
    places, seen = _on_image(heat, (box[0] * scale, box[1] * scale, box[2] * scale,
                                      box[3] * scale), size)  # fmt: skip
    colours = colormaps[_COLOURS](places)[..., :3].astype(np.float32)
    opacity = (_STRONGEST * places)[..., None]
    dull = _GRAY * shown.mean(axis=2, keepdims=True) + (1 - _GRAY) * shown
    mixed = (1 - opacity) * (dull + (shown - dull) * places[..., None]) + opacity * colours
    mixed = np.where(seen[..., None], mixed, _UNSEEN * dull)
    return Image.fromarray(np.rint(np.clip(mixed, 0, 1) * 255).astype(np.uint8))


def with_legend(shown: Image.Image, text: str, found: Explanation) -> Image.Image:
    """Add the text, its score and a colour legend below an overlay.

    Args:
        shown: the overlay.
        text: the text, which is shortened to fit.
        found: the explanation.

    Returns:
        RGB, at least ``_LEAST_WIDTH`` wide, with the unchanged overlay in the middle.
    """
    width = max(shown.width, _LEAST_WIDTH)
    page = Image.new("RGB", (width, shown.height + _LEGEND_PIXELS), _PAPER)
    page.paste(shown, ((width - shown.width) // 2, 0))
    page.paste(_legend(width, text, found), (0, shown.height))
    return page


def _legend(width: int, text: str, found: Explanation) -> Image.Image:
    figure = Figure(figsize=(width / _DPI, _LEGEND_PIXELS / _DPI), dpi=_DPI, facecolor=_PAPER)
    # A letter of this size is about 8 pixels wide, and a Chinese one is twice as wide.
    asked = _cut(visible(text), (width - 2 * _MARGIN) // 9)
    style: dict[str, Any] = {"parse_math": False, "va": "center"}
    left, right = _MARGIN / width, 1 - _MARGIN / width
    font = plot_font([asked])
    if font.note:
        get_logger("explain").warning(font.note)
    figure.text(left, 0.72, asked, fontfamily=font.families, fontsize=12, color=_INK, **style)
    below = f"score {score_text(found.score)}, {found.method}"
    figure.text(left, 0.3, below, fontsize=9, color=_SOFT, **style)
    scale = (right - _SCALE_PIXELS / width, 0.22, _SCALE_PIXELS / width, 0.14)
    figure.text(scale[0] - 8 / width, 0.3, "weak", ha="right", fontsize=9, color=_SOFT, **style)
    axes = figure.add_axes((scale[0], scale[1], scale[2] - 48 / width, scale[3]))
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=_COLOURS, aspect="auto")
    axes.set_axis_off()
    figure.text(right, 0.3, "strong", ha="right", fontsize=9, color=_SOFT, **style)
    with warnings.catch_warnings(), io.BytesIO() as file:
        # The note above lists these letters once; matplotlib would warn about each one.
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font", UserWarning)
        figure.savefig(file, format="png", dpi=_DPI)
        return Image.open(file).convert("RGB")


def _cut(text: str, room: int) -> str:
    """Return the start of a text that fits in ``room`` characters; wide ones count twice."""
    taken = 0
    for place, char in enumerate(text):
        taken += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if taken > room:
            return text[: max(1, place - 1)] + "…"
    return text


def explain_image(
    vectorizer: Vectorizer, image: str, text: str, out: Path, method: Method | None = None
) -> Explanation:
    """Explain the match of an image and a text, and write the overlay with a legend as a PNG.

    Args:
        vectorizer: the vectorizer of the version.
        image: a file, or the uri or id of an image in the corpus.
        text: the text.
        out: the file to write, without metadata.
        method: see :func:`mmindex.insight.explain.explain`.

    Raises:
        NoInputError, DataError: the image is missing, or cannot be decoded.
        UsageError: the text is empty, or as :func:`mmindex.insight.explain.explain`.
        MmindexError: the file cannot be written.
    """
    found, shown = draw_match(vectorizer, vectorizer.open_image(image), text, method)
    with os_errors(out):
        shown.save(out, format="PNG")
    return found


def draw_match(
    vectorizer: Vectorizer, image: Image.Image, text: str, method: Method | None = None
) -> tuple[Explanation, Image.Image]:
    """Explain the match of an image and a text: return the explanation, and its overlay.

    Args:
        vectorizer: the vectorizer of the version.
        image: RGB, upright.
        text: the text.
        method: see :func:`mmindex.insight.explain.explain`.

    Raises:
        UsageError: the text is empty, or as :func:`mmindex.insight.explain.explain`.
        MmindexError: the model is not available, or returns no usable vector.
    """
    encoder = vectorizer.encoder
    pixels = to_pixels(image, encoder.preprocess)
    found = explain(encoder, pixels, vectorizer.text(text), method)
    shown = overlay(image, found.heat, encoder.preprocess)
    return found, with_legend(shown, text, found)


def _on_image(heat: Float32, box: Box, size: tuple[int, int]) -> tuple[Float32, NDArray[np.bool_]]:
    """Return the interpolated values at every pixel, and which pixels the model saw."""
    width, height = size
    left, top, right, bottom = box
    # The position of each pixel's centre in the view, 0 to 1.
    x = (np.arange(width) + 0.5 - left) / (right - left)
    y = (np.arange(height) + 0.5 - top) / (bottom - top)
    inside_x, inside_y = (x >= 0) & (x <= 1), (y >= 0) & (y <= 1)
    rows = _weights(y, heat.shape[0])
    columns = _weights(x, heat.shape[1])
    places: Float32 = (rows @ heat.astype(np.float64) @ columns.T).astype(np.float32)
    return places, inside_y[:, None] & inside_x[None, :]


def _weights(positions: NDArray[np.floating[Any]], cells: int) -> NDArray[np.float64]:
    """Return weights for linear interpolation: float64 (positions, cells), rows sum to 1."""
    place = np.clip(positions * cells - 0.5, 0, cells - 1)
    low = np.minimum(place.astype(np.int64), max(cells - 2, 0))
    share = place - low
    weights = np.zeros((len(positions), cells))
    rows = np.arange(len(positions))
    weights[rows, low] = 1 - share
    weights[rows, np.minimum(low + 1, cells - 1)] += share
    return weights
