"""``match``: do a picture and a text belong together?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmindex.core.errors import UsageError
from mmindex_cli.common import StoreOption, store_path
from mmindex_cli.options import DeviceOption

if TYPE_CHECKING:
    from mmindex.insight.match import ScoredPair
    from mmindex.insight.metrics import PairReport, Threshold
    from mmindex.search.vectorize import Vectorizer

ImageOption = Annotated[
    str | None,
    typer.Option(metavar="FILE_OR_URI_OR_ID", help="The picture: a file, or one of the corpus."),
]
TextOption = Annotated[str | None, typer.Option(help="The text.")]
PairsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Judge many pairs: .csv, .tsv or .jsonl with the columns image, text, label.",
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        min=-1.0,
        max=1.0,
        help="Least cosine similarity of a match. [default: fitted to the corpus' own pairs]",
    ),
]
SeedOption = Annotated[
    int, typer.Option(min=0, help="Of the sample that the threshold is fitted to.")
]
FormatOption = Annotated[
    Literal["table", "json", "tsv"],
    typer.Option("--format", help="table for people; json: one object; tsv: one pair a line."),
]


def match(
    image: ImageOption = None,
    text: TextOption = None,
    pairs: PairsOption = None,
    threshold: ThresholdOption = None,
    seed: SeedOption = 0,
    output_format: FormatOption = "table",
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Tell whether a picture and a text belong together; with --pairs, how often that is right.

    Example: mmindex match --image cat.jpg --text "a cat on a sofa"
    """
    from mmindex.search.vectorize import open_vectorizer

    if (pairs is None) == (image is None or text is None):
        raise UsageError(
            "give --image and --text, or --pairs",
            'mmindex match --image cat.jpg --text "a cat on a sofa"',
        )
    with open_vectorizer(store_path(store), device) as vectorizer:
        fitted = _fit(vectorizer, threshold, seed)
        cut = fitted.value if fitted is not None else threshold
        if pairs is not None and cut is not None:
            _judge(vectorizer, pairs, cut, fitted, output_format)
        elif image is not None and text is not None and cut is not None:
            _one(vectorizer, (image, text), cut, fitted, output_format)


def _fit(vectorizer: Vectorizer, threshold: float | None, seed: int) -> Threshold | None:
    from mmindex.insight.match import corpus_threshold

    return corpus_threshold(vectorizer.snapshot, seed) if threshold is None else None


def _one(
    vectorizer: Vectorizer,
    pair: tuple[str, str],
    cut: float,
    fitted: Threshold | None,
    form: Literal["table", "json", "tsv"],
) -> None:
    from mmindex.core.display import inert_json
    from mmindex.insight.match import score_pair
    from mmindex_cli.output import print_line, tsv_cell

    score = score_pair(vectorizer, *pair)
    verdict = "match" if score >= cut else "no match"
    if form == "json":
        record = {"image": pair[0], "text": pair[1], "score": round(score, 6),
                  "match": score >= cut, **_threshold(cut, fitted)}  # fmt: skip
        print_line(inert_json(record), form)
    elif form == "tsv":
        cells = (tsv_cell(pair[0]), tsv_cell(pair[1]), f"{score:.6f}", verdict)
        print_line("\t".join(cells), form)
    else:
        print_line(f"{verdict}: score {score:.4f}, threshold {cut:.4f}{_source(fitted)}", form)


def _judge(
    vectorizer: Vectorizer,
    path: Path,
    cut: float,
    fitted: Threshold | None,
    form: Literal["table", "json", "tsv"],
) -> None:
    from mmindex.core.display import inert_json
    from mmindex.insight.match import judge, score_pairs
    from mmindex.insight.pairs import read_pairs
    from mmindex_cli.output import print_line

    scored = score_pairs(vectorizer, read_pairs(path))
    if form == "tsv":
        for line in _pair_lines(scored, cut):
            print_line(line, form)
        return
    report = judge(scored, cut)
    bad = [(one.pair.image, one.error) for one in scored if one.error is not None]
    if form == "json":
        record = {**_figures(report), **_threshold(cut, fitted),
                  "errors": [{"image": image, "error": error} for image, error in bad]}  # fmt: skip
        print_line(inert_json(record), form)
        return
    for line in _report_lines(report, cut, fitted, bad):
        print_line(line, form)


def _pair_lines(scored: tuple[ScoredPair, ...], cut: float) -> Iterator[str]:
    from mmindex_cli.output import tsv_cell

    yield "image\ttext\tlabel\tscore\tmatch\terror"
    for one in scored:
        score = "" if one.score is None else f"{one.score:.6f}"
        told = "" if one.score is None else str(int(one.score >= cut))
        cells = (tsv_cell(one.pair.image), tsv_cell(one.pair.text), str(int(one.pair.label)))
        yield "\t".join((*cells, score, told, tsv_cell(one.error or "")))


def _figures(report: PairReport) -> dict[str, object]:
    return {
        "pairs": report.pairs,
        "matched": report.matched,
        "accuracy": report.accuracy,
        "precision": report.precision,
        "recall": report.recall,
        "f1": report.f1,
        "roc_auc": report.roc_auc,
    }


def _threshold(cut: float, fitted: Threshold | None) -> dict[str, object]:
    record: dict[str, object] = {"threshold": round(cut, 6)}
    if fitted is not None:
        record["fitted"] = {
            "balanced_accuracy": fitted.balanced_accuracy,
            "matched": fitted.matched,
            "unmatched": fitted.unmatched,
        }
    return record


def _source(fitted: Threshold | None) -> str:
    if fitted is None:
        return ""
    return (
        f" (fitted to {fitted.matched:,} matched and {fitted.unmatched:,} unmatched pairs"
        f" of the corpus: {100 * fitted.balanced_accuracy:.1f} % right)"
    )


def _report_lines(
    report: PairReport, cut: float, fitted: Threshold | None, bad: Sequence[tuple[str, str | None]]
) -> Iterator[str]:
    from mmindex.core.display import visible

    yield f"pairs      {report.pairs:,}, of which {report.matched:,} matched"
    yield f"threshold  {cut:.4f}{_source(fitted)}"
    for name, value in (
        ("accuracy", report.accuracy),
        ("precision", report.precision),
        ("recall", report.recall),
        ("F1", report.f1),
        ("ROC AUC", report.roc_auc),
    ):
        yield f"{name:<11}" + ("-" if value is None else f"{100 * value:.1f} %")
    if bad:
        yield f"unusable   {len(bad):,}, such as {visible(f'{bad[0][0]}: {bad[0][1]}')}"
