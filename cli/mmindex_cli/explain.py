"""``explain``: which parts of a picture carry its match with a text?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mmindex.core.errors import CannotCreateError
from mmindex_cli.common import StoreOption, store_path
from mmindex_cli.options import DeviceOption

ImageOption = Annotated[
    str,
    typer.Option(metavar="FILE_OR_URI_OR_ID", help="The picture: a file, or one of the corpus."),
]
TextOption = Annotated[str, typer.Option(help="The text.")]
OutOption = Annotated[Path, typer.Option(metavar="FILE.png", help="Where the overlay goes.")]
MethodOption = Annotated[
    Literal["gradient", "occlusion"] | None,
    typer.Option(help="How the map is made. [default: gradient]"),
]
FormatOption = Annotated[
    Literal["table", "json"], typer.Option("--format", help="json also holds the map itself.")
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
    """Show on the picture where it matches the text, as a PNG file.

    Example: mmindex explain --image beach.jpg --text "a red umbrella" --out umbrella.png
    """
    from mmindex.core.display import inert_json, visible
    from mmindex.insight.overlay import explain_picture
    from mmindex.search.vectorize import open_vectorizer
    from mmindex_cli.output import print_line

    if not out.parent.is_dir() or out.is_dir():
        raise CannotCreateError(f"{out}: cannot be created", "name a file in an existing folder")
    with open_vectorizer(store_path(store), device) as vectorizer:
        found = explain_picture(vectorizer, image, text, out, method)
    if output_format == "json":
        record = {
            "image": image,
            "text": text,
            "score": round(found.score, 6),
            "method": found.method,
            "peak": None if found.peak is None else [round(value, 4) for value in found.peak],
            "map": [[round(value, 4) for value in row] for row in found.grid(8).tolist()],
            "out": str(out),
        }
        print_line(inert_json(record), output_format)
        return
    print_line(f"score {found.score:.4f} for {visible(text)}", output_format)
    if found.peak is None:
        print_line("no part of the picture speaks for this text", output_format)
    else:
        x, y = found.peak
        place = f"{100 * x:.0f} % from the left, {100 * y:.0f} % from the top of what it sees"
        print_line(f"by {found.method}, most at {place}", output_format)
    print_line(f"written to {visible(str(out))}", output_format)
