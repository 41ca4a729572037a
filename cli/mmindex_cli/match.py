"""``match``: check whether a text describes an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex.core.display import score_text, visible
from mmindex.core.errors import UsageError
from mmindex_cli.common import store_path
from mmindex_cli.options import DeviceOption, StoreOption, TableFormat

if TYPE_CHECKING:
    from mmindex.insight.match import ScoredPair
    from mmindex.insight.metrics import PairReport, Threshold
    from mmindex.search.vectorize import Vectorizer
    from mmindex_cli.output import Cell, Form

ImageOption = Annotated[
    str | None,
    typer.Option(metavar="IMAGE", help="A file, or the uri or id of an indexed image."),
]
TextOption = Annotated[str | None, typer.Option(help="The text.")]
PairsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Check many pairs: a .csv, .tsv or .jsonl file with the columns image, text, label.",
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        min=-1.0,
        max=1.0,
        help="Lowest cosine similarity of a match. [default: fitted to the pairs in the corpus]",
    ),
]
SeedOption = Annotated[
    int, typer.Option(min=0, help="Seed of the sample for fitting the threshold.")
]


def match(
    image: ImageOption = None,
    text: TextOption = None,
    pairs: PairsOption = None,
    threshold: ThresholdOption = None,
    seed: SeedOption = 0,
    output_format: TableFormat = "table",
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Check whether a text describes an image, or evaluate a list of labelled pairs.

    Example: mmindex match --image cat.jpg --text "a cat on a sofa"
    """
    from mmindex.search.vectorize import open_vectorizer

    if (pairs is None) == (image is None or text is None):
        raise UsageError(
            "pass --image and --text, or --pairs",
            'for example: mmindex match --image cat.jpg --text "a cat on a sofa"',
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
    vectorizer: Vectorizer, pair: tuple[str, str], cut: float, fitted: Threshold | None, form: Form
) -> None:
    from mmindex.insight.match import score_pair
    from mmindex_cli.output import emit

    score = score_pair(vectorizer, *pair)
    verdict = "match" if score >= cut else "no match"
    line = f"{verdict}: score {score_text(score)}, threshold {score_text(cut)}{_source(fitted)}"
    record = {"image": pair[0], "text": pair[1], "score": round(score, 6), "match": score >= cut}
    emit(
        [score],
        form,
        text=lambda _: [line],
        json=lambda _: {**record, **_threshold(cut, fitted)},
        tsv=((), lambda _: [(*pair, score, verdict)]),
    )


def _judge(
    vectorizer: Vectorizer, path: Path, cut: float, fitted: Threshold | None, form: Form
) -> None:
    from mmindex.insight.match import judge, score_pairs
    from mmindex.insight.pairs import read_pairs
    from mmindex_cli.output import emit

    scored = score_pairs(vectorizer, read_pairs(path))
    if form == "tsv":
        rows = (_PAIR_COLUMNS, lambda one: [_pair_cells(one, cut)])
        emit(scored, form, text=lambda _: (), json=lambda _: {}, tsv=rows)
        return
    report = judge(scored, cut)
    bad = [(one.pair.image, one.error) for one in scored if one.error is not None]
    errors = [{"image": image, "error": error} for image, error in bad]
    emit(
        [report],
        form,
        text=lambda _: _report_lines(report, cut, fitted, bad),
        json=lambda one: {**_figures(one), **_threshold(cut, fitted), "errors": errors},
    )


_PAIR_COLUMNS = ("image", "text", "label", "score", "match", "error")


def _pair_cells(one: ScoredPair, cut: float) -> Sequence[Cell]:
    told = None if one.score is None else one.score >= cut
    return one.pair.image, one.pair.text, one.pair.label, one.score, told, one.error


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
        f" of the corpus: {100 * fitted.balanced_accuracy:.1f} % correct)"
    )


def _report_lines(
    report: PairReport, cut: float, fitted: Threshold | None, bad: Sequence[tuple[str, str | None]]
) -> Iterator[str]:
    yield f"pairs      {report.pairs:,}, {report.matched:,} of them matched"
    yield f"threshold  {score_text(cut)}{_source(fitted)}"
    for name, value in (
        ("accuracy", report.accuracy),
        ("precision", report.precision),
        ("recall", report.recall),
        ("F1", report.f1),
        ("ROC AUC", report.roc_auc),
    ):
        yield f"{name:<11}" + ("-" if value is None else f"{100 * value:.1f} %")
    if bad:
        yield f"unusable   {len(bad):,}, for example {visible(f'{bad[0][0]}: {bad[0][1]}')}"
