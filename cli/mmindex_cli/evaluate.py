"""``evaluate``: measure the recall of the published version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex_cli.common import store_path
from mmindex_cli.options import PageOption, StoreOption, TextFormat

if TYPE_CHECKING:
    from mmindex.evaluate.contrast import Contrast
    from mmindex.evaluate.evaluation import (
        CeilingBlock,
        Evaluation,
        JudgedFigures,
        LanguageBlock,
        RecallBlock,
        Reliabilities,
    )
    from mmindex.evaluate.expect import Comparison
    from mmindex_cli.output import Form

ExpectOption = Annotated[
    str | None,
    typer.Option(
        "--expect",
        metavar="FILE",
        help="Compare with the expected figures in a TOML file, or with the `published` ones. "
        "Exit code 65 if one is outside its tolerance.",
    ),
]

CompareOption = Annotated[
    str | None,
    typer.Option(
        "--compare",
        metavar="STORE_OR_VERSION",
        help="Compare recall with another store of the same corpus, or with a version of this "
        "store by its number. Shows differences with intervals, McNemar's test, and the queries "
        "that changed most.",
    ),
]

QrelsOption = Annotated[
    str | None,
    typer.Option(
        "--qrels",
        metavar="FILE|eccv-caption|cxc",
        help="Also measure with the right answers in this file, in the qrels format of TREC "
        "(`query_id 0 doc_id relevance`): mAP@R, R-Precision, nDCG@10, MRR and recall@K. For "
        "COCO's test split, eccv-caption and cxc select lists with more right answers than COCO.",
    ),
]

_SHOWN_CHANGES = 3
_HEADER = (
    f"{'recall, percent':<24}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'median rank':>14}{'queries':>10}"
)


def evaluate(
    store: StoreOption = None,
    output_format: TextFormat = "text",
    html: PageOption = None,
    expect: ExpectOption = None,
    compare_with: CompareOption = None,
    qrels: QrelsOption = None,
) -> None:
    """Measure recall@K in both directions, with exact search and through the index, and the
    recall of the index.

    --html writes a report with confidence intervals, ranks, best and worst queries, and speed.
    --qrels also measures with several right answers per query. --compare shows whether another
    model is better on the same corpus.

    Example: mmindex evaluate --html report.html
    """
    import mmindex
    from mmindex.evaluate.contrast import contrast, open_other
    from mmindex.evaluate.expect import compare, find_expected
    from mmindex.evaluate.stage import judge_with, read_judgements, settings_of

    with mmindex.open(store_path(store)) as index:
        # Checked now, and not after minutes of measuring.
        golden = None if expect is None else find_expected(index.snapshot, expect)
        other = None if compare_with is None else open_other(index.snapshot, compare_with)
        answers = None if qrels is None else read_judgements(index.snapshot, qrels)
        measured, config = index.measure(), settings_of(index.snapshot)
        comparison = None if golden is None else compare(golden, measured.evaluation)
        judged = None if answers is None else judge_with(answers, measured.corpus, config)
        against = None if other is None else contrast(index.snapshot, measured, other)
        _print(measured.evaluation, Extras(comparison, against, judged), output_format)
        if html is not None:
            from mmindex.pages.page import write_page
            from mmindex.pages.report import report_page

            page = report_page(index.snapshot, measured, config, comparison, against, judged)
            write_page(html, page)
    if comparison is not None:
        comparison.check()


@dataclass(frozen=True, slots=True)
class Extras:
    """What options add to an evaluation; None without the option."""

    comparison: Comparison | None
    against: Contrast | None
    judged: JudgedFigures | None


def _print(evaluation: Evaluation, extras: Extras, output_format: Form) -> None:
    from mmindex_cli.output import emit

    emit(
        [evaluation],
        output_format,
        text=lambda _: _lines(evaluation, extras),
        json=lambda one: _record(one, extras),
        compact=True,
    )


def _record(evaluation: Evaluation, extras: Extras) -> dict[str, object]:
    import msgspec

    shown: dict[str, object] = msgspec.to_builtins(evaluation)
    if extras.judged is not None:
        shown["judged"] = msgspec.to_builtins(extras.judged)
    if extras.against is not None:
        shown["compared"] = extras.against.record()
    comparison = extras.comparison
    if comparison is None:
        return shown
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
    return {**shown, "expected": {"of": comparison.title, "figures": figures}}


def _lines(evaluation: Evaluation, extras: Extras) -> Iterator[str]:
    yield from evaluation_lines(evaluation)
    if extras.judged is not None:
        yield from judged_lines(extras.judged)
    if extras.against is not None:
        yield from contrast_lines(extras.against)
    if extras.comparison is not None:
        yield from comparison_lines(extras.comparison)


def judged_lines(judged: JudgedFigures) -> Iterator[str]:
    """Return a table of the figures with the right answers of a file."""
    yield ""
    yield f"{'judged, percent':<24}{'figure':<14}{'value':>7}{'95 % interval':>17}{'queries':>10}"
    directions = {"text to image": judged.text_to_image, "image to text": judged.image_to_text}
    for title, block in directions.items():
        if block is None:
            yield f"{title:<24}no right answers in the file"
            continue
        for name, one in block.figures.items():
            interval = f"{one.low:.1f} - {one.high:.1f}"
            yield f"{title:<24}{name:<14}{one.value:>7.1f}{interval:>17}{block.queries:>10,}"
        if block.sampled:
            yield f"note: {title} was measured on a sample of the judged queries"
        if block.without_right_answer:
            yield f"note: {block.without_right_answer:,} judged queries have no right answer"
    yield f"qrels: {judged.lines:,} lines, {judged.unknown:,} with unknown ids"
    yield "note: own_r@K accepts only a query's own image or captions, and counts others as wrong:"
    yield "      these false negatives are the known flaw of recall on COCO"


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Return a table of expected and measured figures."""
    from mmindex.core.display import visible

    yield ""
    yield visible(f"expected for {comparison.title}")
    yield f"{'figure':<28}{'expected':>10}{'tolerance':>11}{'measured':>10}"
    for one in comparison.figures:
        measured = "-" if one.measured is None else f"{one.measured:.6g}"
        verdict = "" if one.within else "  outside"
        yield f"{one.name:<28}{one.expected:>10.6g}{one.tolerance:>11g}{measured:>10}{verdict}"
    inside = len(comparison.figures) - len(comparison.outside)
    yield f"{inside} of {len(comparison.figures)} figures are within their tolerance"


def contrast_lines(against: Contrast) -> Iterator[str]:
    """Return a table of the differences, and the queries that changed most."""
    from mmindex.core.display import visible

    yield ""
    yield visible(f"compared with version {against.version} of {against.store} ({against.model})")
    yield (
        f"{'recall, percent':<20}{'this':>7}{'other':>7}{'difference':>12}{'95 % interval':>18}"
        f"{'only this':>11}{'only other':>12}{'p':>10}"
    )
    directions = {
        "text to image": against.text_to_image,
        "image to text": against.image_to_text,
    }
    for title, direction in directions.items():
        for change in direction.changes:
            interval = f"{change.low:+.1f} to {change.high:+.1f}"
            yield (
                f"{f'{title}, R@{change.k}':<20}{change.here:>7.1f}{change.there:>7.1f}"
                f"{change.difference:>+12.1f}{interval:>18}{change.only_here:>11,}"
                f"{change.only_there:>12,}{change.shown_p:>10}"
            )
    if against.same_ranks:
        yield "every query has the same rank in both versions"
    for title, direction in directions.items():
        for label, moved in (("better", direction.better), ("worse", direction.worse)):
            for one in moved[:_SHOWN_CHANGES]:
                yield visible(f"{title}, {label}: {one.id}  rank {one.here:,}, other {one.there:,}")


def evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    """Return a table of the figures."""
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
    if evaluation.reliability is not None:
        yield ""
        yield from _reliability_lines(evaluation.reliability)
    if (hubs := evaluation.hubness) is not None:
        yield ""
        yield f"{'hubness, held out':<24}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'':>14}{hubs.queries:>10,}"
        for label, figures in (("without correction", hubs.without), ("with", hubs.corrected)):
            yield f"{label:<24}" + "".join(f"{value:7.1f}" for value in figures.values())
    if evaluation.languages is not None:
        yield ""
        yield from _language_lines(evaluation.languages)
    yield from _notes(evaluation)


def _reliability_lines(known: Reliabilities) -> Iterator[str]:
    yield (
        f"{'probabilities, held out':<24}{'ECE':>7}{'first hits':>12}{'95 % interval':>17}"
        f"{'queries':>10}"
    )
    judged = (("text to image", known.text_to_image), ("image to text", known.image_to_text))
    for label, one in judged:
        if one is not None:
            first = one.first_hits
            interval = f"{first.ece_low:.3f} - {first.ece_high:.3f}"
            yield f"{label:<24}{one.hits.ece:7.3f}{first.ece:12.3f}{interval:>17}{one.queries:10,}"
    yield (
        f"{'query --good, percent':<24}{'right answers lost':>20}{'no answer recognised':>22}"
        f"{'flat threshold':>18}"
    )
    for label, one in judged:
        if one is not None:
            lost, nothing = one.good.right_lost, one.good.nothing
            yield f"{label:<24}{lost:20.1f}{nothing:22.1f}{one.flat_threshold.nothing:18.1f}"


def _language_lines(languages: Sequence[LanguageBlock]) -> Iterator[str]:
    from mmindex.core.display import visible

    yield f"{'':<16}{'text to image':>21}{'image to text':>24}"
    columns = "".join(f"{name:>7}" for name in ("R@1", "R@5", "R@10"))
    yield f"{'language':<16}{columns}   {columns}{'captions':>11}"
    for one in languages:
        forth, back = (
            "".join(f"{value:7.1f}" for value in side.values())
            for side in (one.text_to_image, one.image_to_text)
        )
        yield f"{visible(one.language)[:15]:<16}{forth}   {back}{one.captions:11,}"


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
        yield "note: best possible is below 100 because some captions fit several drawn scenes"
    if evaluation.captions == 0:
        yield "note: hits have no probabilities, because these are fitted to captions"
        yield (
            "note: the corpus has no captions, so the image index was queried with images; each "
            "was left out of its own answers"
        )
    elif evaluation.reliability is None:
        yield (
            "note: hits have no probabilities: the corpus has too few images with captions, or an "
            "older release built this version"
        )
    if evaluation.sampled:
        yield f"note: measured on a sample of the queries (seed {evaluation.seed})"
    if not evaluation.trained:
        yield "warning: the model is UNTRAINED: these figures are meaningless"
