"""``caption``: describe images with captions of the corpus, or with new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmindex.core.display import score_text, visible
from mmindex.core.errors import UsageError
from mmindex_cli.ask import (
    BeamsOption,
    CorpusOption,
    SomeImageOption,
    TableOption,
    written,
)
from mmindex_cli.common import store_path
from mmindex_cli.options import DeviceOption, StoreOption, WhereOption
from mmindex_cli.tables import Target

if TYPE_CHECKING:
    from mmindex.decoder.compare import Compared
    from mmindex.insight.caption import Described
    from mmindex_cli.output import Form

CaptionsOption = Annotated[int, typer.Option("-k", min=1, help="Number of captions.")]
VotersOption = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Order this many nearest captions by agreement. [default: order by similarity]",
    ),
]
GenerateOption = Annotated[
    bool, typer.Option("--generate", help="Write a new description with the model's decoder.")
]
ReferencesOption = Annotated[
    bool,
    typer.Option(
        "--references",
        help="With --generate --corpus, also compare the new descriptions with the captions of the "
        "corpus: BLEU, CIDEr-D, ROUGE-L and CLIPScore.",
    ),
]
FormatOption = Annotated[
    Literal["table", "json"], typer.Option("--format", help="table for people, json for programs.")
]


def caption(
    image: SomeImageOption = None,
    k: CaptionsOption = 1,
    voters: VotersOption = None,
    generate: GenerateOption = False,
    beams: BeamsOption = 1,
    corpus: CorpusOption = False,
    out: TableOption = None,
    where: WhereOption = None,
    references: ReferencesOption = False,
    output_format: FormatOption = "table",
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Describe an image with the nearest captions of the corpus, or with a new description.

    New descriptions are written by the decoder of the model. The embedded model has one for drawn
    scenes.

    Example: mmindex caption --image beach.jpg -k 3
    """
    import mmindex

    if generate:
        target = Target(image, corpus, out, where, beams)
        if k != 1 or voters is not None:
            raise UsageError("-k and --voters choose captions of the corpus", "remove `generate`")
        if references and out is None:
            raise UsageError("`references` are compared with texts in a file", "add `corpus`")
        with mmindex.open(store_path(store), device=device) as index:
            written(index, None, "caption", target, output_format)
            if references and out is not None:
                _print_scores(index.compare_captions(out), output_format)
        return
    if image is None or references or Target(image, corpus, out, where, beams).beams != 1:
        raise UsageError("captions of the corpus need one image", "add `image`, or `generate`")
    from mmindex.insight.caption import describe
    from mmindex.search.vectorize import open_vectorizer

    with open_vectorizer(store_path(store), device) as vectorizer:
        described = describe(vectorizer, image, k, voters)
    _print_captions(image, described, output_format)


def _print_captions(image: str, described: Described, form: Form) -> None:
    from mmindex_cli.output import emit

    emit(
        [described],
        form,
        text=lambda _: (
            f"{score_text(hit.score):>7}  {visible(hit.caption or '')}"
            for hit in described.captions
        ),
        json=lambda found: {"image": image, "captions": _records(found)},
    )


def _print_scores(found: Compared, form: Form) -> None:
    from mmindex_cli.output import emit, labelled

    one = found.scores
    figures = {
        **{f"bleu_{order}": value for order, value in enumerate(one.bleu, start=1)},
        "cider_d": one.cider,
        "rouge_l": one.rouge,
        "clip_score": found.clip_score,
        "repeated": one.repeated,
    }
    counts = {"images": found.images, "left_out": found.left_out}
    emit(
        [found],
        form,
        text=lambda _: labelled(
            [("images", f"{found.images:,}"), *((key, f"{v:.3f}") for key, v in figures.items())]
        ),
        json=lambda _: counts | {key: round(value, 6) for key, value in figures.items()},
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
