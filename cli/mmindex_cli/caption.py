"""``caption``: describe an image with captions of the corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmindex.core.display import score_text, visible
from mmindex_cli.common import store_path
from mmindex_cli.options import DeviceOption, ImageOption, StoreOption

if TYPE_CHECKING:
    from mmindex.insight.caption import Described

CaptionsOption = Annotated[int, typer.Option("-k", min=1, help="Number of captions.")]
VotersOption = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Order this many nearest captions by agreement. [default: order by similarity]",
    ),
]
FormatOption = Annotated[
    Literal["table", "json"], typer.Option("--format", help="table for people, json for programs.")
]


def caption(
    image: ImageOption,
    k: CaptionsOption = 1,
    voters: VotersOption = None,
    output_format: FormatOption = "table",
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Describe an image with the nearest captions of the corpus.

    Example: mmindex caption --image beach.jpg -k 3
    """
    from mmindex.insight.caption import describe
    from mmindex.search.vectorize import open_vectorizer
    from mmindex_cli.output import emit

    with open_vectorizer(store_path(store), device) as vectorizer:
        described = describe(vectorizer, image, k, voters)
    emit(
        [described],
        output_format,
        text=lambda _: (
            f"{score_text(hit.score):>7}  {visible(hit.caption or '')}"
            for hit in described.captions
        ),
        json=lambda found: {"image": image, "captions": _records(found)},
    )


def _records(described: Described) -> list[dict[str, object]]:
    return [
        {
            "caption": hit.caption,
            "score": round(hit.score, 6),
            "agreement": round(agreement, 6),
            "id": hit.id,
            "image_id": hit.image_id,
        }
        for hit, agreement in zip(described.captions, described.agreement, strict=True)
    ]
