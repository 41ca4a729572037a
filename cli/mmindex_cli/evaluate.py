"""``evaluate``: measure recall of the published version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmindex_cli.common import StoreOption, store_path

if TYPE_CHECKING:
    from mmindex.evaluate.evaluation import CeilingBlock, Evaluation, RecallBlock
    from mmindex.evaluate.expect import Comparison

FormatOption = Annotated[
    Literal["text", "json"], typer.Option("--format", help="text for people, json for scripts.")
]
HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Also write a report as a web page: intervals, ranks, best and worst queries, speed.",
    ),
]
ExpectOption = Annotated[
    str | None,
    typer.Option(
        "--expect",
        metavar="FILE",
        help="Compare with the golden figures in a TOML file, or with the `published` ones;"
        " outside their tolerance the exit code is 65.",
    ),
]

_HEADER = (
    f"{'recall, percent':<24}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'median rank':>14}{'queries':>10}"
)


def evaluate(
    store: StoreOption = None,
    output_format: FormatOption = "text",
    html: HtmlOption = None,
    expect: ExpectOption = None,
) -> None:
    """Measure recall@K both ways, exactly and through the index, and what the index loses.

    Example: mmindex evaluate --html report.html
    """
    from mmindex.core.config import EvaluateConfig
    from mmindex.evaluate.expect import compare, find_expected
    from mmindex.evaluate.stage import measure
    from mmindex.store.snapshot import open_snapshot

    snapshot = open_snapshot(store_path(store))
    # Found out now, not after minutes of measuring.
    golden = None if expect is None else find_expected(snapshot, expect)
    config = EvaluateConfig.model_validate(snapshot.manifest.config.get("evaluate", {}))
    measured = measure(snapshot, config)
    comparison = None if golden is None else compare(golden, measured.evaluation)
    _print(measured.evaluation, comparison, output_format)
    if html is not None:
        from mmindex.pages.page import write_page
        from mmindex.pages.report import report_page

        write_page(html, report_page(snapshot, measured, config, comparison))
    if comparison is not None:
        comparison.check()


def _print(evaluation: Evaluation, comparison: Comparison | None, output_format: str) -> None:
    if output_format == "json":
        typer.echo(_json(evaluation, comparison))
        return
    for line in evaluation_lines(evaluation):
        typer.echo(line)
    for line in comparison_lines(comparison) if comparison else ():
        typer.echo(line)


def _json(evaluation: Evaluation, comparison: Comparison | None) -> bytes:
    import msgspec

    if comparison is None:
        return msgspec.json.encode(evaluation)
    figures = [
        {
            "figure": figure.name,
            "expected": figure.expected,
            "measured": figure.measured,
            "tolerance": figure.tolerance,
            "within": figure.within,
        }
        for figure in comparison.figures
    ]
    shown = msgspec.to_builtins(evaluation)
    return msgspec.json.encode({**shown, "expected": {"of": comparison.title, "figures": figures}})


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Expected and measured figures as a table for people."""
    from mmindex.core.display import visible

    yield ""
    yield visible(f"expected of {comparison.title}")
    yield f"{'figure':<28}{'expected':>10}{'tolerance':>11}{'measured':>10}"
    for one in comparison.figures:
        measured = "-" if one.measured is None else f"{one.measured:.6g}"
        verdict = "" if one.within else "  outside"
        yield f"{one.name:<28}{one.expected:>10.6g}{one.tolerance:>11g}{measured:>10}{verdict}"
    inside = len(comparison.figures) - len(comparison.outside)
    yield f"{inside} of {len(comparison.figures)} figures are as expected"


def evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    """The figures as a table for people."""
    from mmindex.core.display import visible

    corpus = f"{evaluation.images:,} images, {evaluation.captions:,} captions"
    yield f"version {evaluation.version}  {visible(evaluation.model)}  {corpus}"
    yield ""
    if evaluation.text_to_image is not None and evaluation.image_to_text is not None:
        yield _HEADER
        queries = evaluation.queries
        yield _line("text to image, exact", evaluation.text_to_image, queries.text_to_image)
        yield _line("  through the index", evaluation.text_to_image_index)
        if evaluation.ceiling is not None:
            yield _best_line(evaluation.ceiling.text_to_image)
        yield _line("image to text, exact", evaluation.image_to_text, queries.image_to_text)
        yield _line("  through the index", evaluation.image_to_text_index)
        if evaluation.ceiling is not None:
            yield _best_line(evaluation.ceiling.image_to_text)
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


def _best_line(best: CeilingBlock) -> str:
    return f"{'  best possible':<24}{best.r1:7.1f}{best.r5:7.1f}{best.r10:7.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _notes(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.ceiling is not None:
        yield "note: best possible, as some captions truly fit several of these drawn scenes"
    if evaluation.captions == 0:
        yield "note: no captions, so the image index was asked with images, themselves left out"
    if evaluation.sampled:
        yield f"note: measured with a sample of the queries (seed {evaluation.seed})"
    if not evaluation.trained:
        yield "warning: the model is UNTRAINED: these figures mean nothing"
