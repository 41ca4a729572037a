"""``explain``: show which parts of an image match a text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmindex.core.display import score_text, visible
from mmindex.core.errors import CannotCreateError
from mmindex_cli.common import store_path
from mmindex_cli.options import DeviceOption, ImageOption, StoreOption

if TYPE_CHECKING:
    from mmindex.insight.explain import Explanation

TextOption = Annotated[str, typer.Option(help="The text.")]
OutOption = Annotated[Path, typer.Option(metavar="FILE.png", help="PNG file for the overlay.")]
MethodOption = Annotated[
    Literal["gradient", "occlusion"] | None,
    typer.Option(help="How to compute the map. [default: gradient]"),
]
FormatOption = Annotated[
    Literal["table", "json"],
    typer.Option("--format", help="table for people; json also contains the map."),
]


def explain(
    image: ImageOption,
    text: TextOption,
    out: OutOption = Path("explain.png"),
    method: MethodOption = None,
    output_format: FormatOption = "table",
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Draw the parts of an image that match a text, as a PNG overlay.

    Example: mmindex explain --image beach.jpg --text "a red umbrella" --out umbrella.png
    """
    from mmindex.insight.overlay import explain_image
    from mmindex.search.vectorize import open_vectorizer
    from mmindex_cli.output import emit

    if not out.parent.is_dir() or out.is_dir():
        raise CannotCreateError(f"{out}: cannot be created", "name a file in an existing folder")
    with open_vectorizer(store_path(store), device) as vectorizer:
        found = explain_image(vectorizer, image, text, out, method)
    emit(
        [found],
        output_format,
        text=lambda _: _lines(found, text, out),
        json=lambda one: {"image": image, "text": text, **_record(one), "out": str(out)},
    )


def _record(found: Explanation) -> dict[str, object]:
    return {
        "score": round(found.score, 6),
        "method": found.method,
        "peak": None if found.peak is None else [round(value, 4) for value in found.peak],
        "map": [[round(value, 4) for value in row] for row in found.grid(8).tolist()],
    }


def _lines(found: Explanation, text: str, out: Path) -> Iterator[str]:
    yield f"score {score_text(found.score)} for {visible(text)}"
    if found.peak is None:
        yield "no part of the image supports this text"
    else:
        x, y = found.peak
        place = f"{100 * x:.0f} % from the left, {100 * y:.0f} % from the top of the model's view"
        yield f"strongest ({found.method}) at {place}"
    yield f"written to {visible(str(out))}"
