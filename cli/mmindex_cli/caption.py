"""``caption``: a picture described with the captions of the corpus."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from mmindex_cli.common import StoreOption, store_path
from mmindex_cli.options import DeviceOption

ImageOption = Annotated[
    str,
    typer.Option(metavar="FILE_OR_URI_OR_ID", help="The picture: a file, or one of the corpus."),
]
CaptionsOption = Annotated[int, typer.Option("-k", min=1, help="Captions wanted.")]
VotersOption = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Let so many of the nearest captions choose the one that they agree on most. "
        "[default: the nearest as they come]",
    ),
]
FormatOption = Annotated[Literal["table", "json"], typer.Option("--format")]


def caption(
    image: ImageOption,
    k: CaptionsOption = 1,
    voters: VotersOption = None,
    output_format: FormatOption = "table",
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Describe a picture with the nearest captions of the corpus.

    Example: mmindex caption --image beach.jpg -k 3
    """
    from mmindex.core.display import inert_json, visible
    from mmindex.insight.caption import describe
    from mmindex.search.vectorize import open_vectorizer
    from mmindex_cli.output import print_line

    with open_vectorizer(store_path(store), device) as vectorizer:
        said = describe(vectorizer, image, k, voters)
    if output_format == "json":
        captions = [
            {
                "caption": hit.caption,
                "score": round(hit.score, 6),
                "agreement": round(agreement, 6),
                "id": hit.id,
                "image_id": hit.image_id,
            }
            for hit, agreement in zip(said.captions, said.agreement, strict=True)
        ]
        print_line(inert_json({"image": image, "captions": captions}), output_format)
        return
    for hit in said.captions:
        print_line(f"{hit.score:7.4f}  {visible(hit.caption or '')}", output_format)
