"""``evaluate``: measure recall of the published version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmindex_cli.common import StoreOption, store_path

if TYPE_CHECKING:
    from mmindex.evaluate.evaluation import Evaluation, RecallBlock

FormatOption = Annotated[
    Literal["text", "json"], typer.Option("--format", help="text for people, json for scripts.")
]

_HEADER = (
    f"{'recall, percent':<24}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'median rank':>14}{'queries':>10}"
)


def evaluate(store: StoreOption = None, output_format: FormatOption = "text") -> None:
    """Measure recall@K both ways, exactly and through the index, and what the index loses.

    Example: mmindex evaluate --format json
    """
    import msgspec

    from mmindex.config import EvaluateConfig
    from mmindex.evaluate.evaluate import evaluate as measure
    from mmindex.search.published import open_published

    published = open_published(store_path(store))
    config = EvaluateConfig.model_validate(published.manifest.config.get("evaluate", {}))
    evaluation = measure(published.objects, published.manifest, config)
    if output_format == "json":
        typer.echo(msgspec.json.encode(evaluation))
        return
    for line in evaluation_lines(evaluation):
        typer.echo(line)


def evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    """The figures as a table for people."""
    from mmindex_cli.output import printable

    corpus = f"{evaluation.images:,} images, {evaluation.captions:,} captions"
    yield f"version {evaluation.version}  {printable(evaluation.model)}  {corpus}"
    yield ""
    if evaluation.text_to_image is not None and evaluation.image_to_text is not None:
        yield _HEADER
        queries = evaluation.queries
        yield _line("text to image, exact", evaluation.text_to_image, queries.text_to_image)
        yield _line("  through the index", evaluation.text_to_image_index)
        yield _line("image to text, exact", evaluation.image_to_text, queries.image_to_text)
        yield _line("  through the index", evaluation.image_to_text_index)
        yield ""
    found = evaluation.index_recall
    yield f"index recall@10: image {_percent(found.image)}, text {_percent(found.text)}"
    yield from _notes(evaluation)


def _line(label: str, block: RecallBlock | None, queries: int | None = None) -> str:
    if block is None:
        return f"{label:<24}{'-':>7}"
    figures = f"{block.r1:7.1f}{block.r5:7.1f}{block.r10:7.1f}"
    median = "beyond 10" if block.medr is None else f"{block.medr:g}"
    asked = "" if queries is None else f"{queries:>10,}"
    return f"{label:<24}{figures}{median:>14}{asked}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _notes(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.captions == 0:
        yield "note: no captions, so the image index was asked with images, themselves left out"
    if evaluation.sampled:
        yield f"note: measured with a sample of the queries (seed {evaluation.seed})"
    if not evaluation.trained:
        yield "warning: the model is UNTRAINED: these figures mean nothing"
