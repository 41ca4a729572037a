"""``classify``: which of these labels fits each picture best?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmindex.core.errors import DataError
from mmindex_cli.common import StoreOption, store_path
from mmindex_cli.options import DeviceOption, WhereOption

if TYPE_CHECKING:
    from mmindex.insight.classify import Classifier, Prediction
    from mmindex.insight.metrics import LabelReport
    from mmindex.search.vectorize import Vectorizer

ImagesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IMAGE", help="Pictures: files, folders, uris or ids. [default: the whole corpus]"
    ),
]
LabelsOption = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="The labels, one a line; after a tab the words to ask with, | between synonyms.",
    ),
]
TemplatesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME_OR_FILE",
        help="Prompts that labels are put into: photo, drawing, plain, or a file with one a line "
        "({} is the label). [default: drawing for the embedded model, else photo]",
    ),
]
TopOption = Annotated[int, typer.Option("-k", min=1, help="Labels for each picture.")]
TruthOption = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN_OR_FILE",
        help="The right labels: a column of the images table, `folder` (the name of a picture's "
        "folder), or a .csv, .tsv or .jsonl with the columns image, label.",
    ),
]
ConfusionOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE.png", help="Also draw the confusion matrix; needs --truth."),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=1e6, help="Logit scale for the probabilities. [default: the model's own]"
    ),
]
FormatOption = Annotated[
    Literal["table", "json", "tsv"],
    typer.Option(
        "--format", help="table for people; json: one picture a line, then the report; tsv."
    ),
]


def classify(
    labels: LabelsOption,
    images: ImagesArgument = None,
    templates: TemplatesOption = None,
    k: TopOption = 1,
    truth: TruthOption = None,
    confusion: ConfusionOption = None,
    where: WhereOption = None,
    scale: ScaleOption = None,
    output_format: FormatOption = "table",
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Label pictures without training, by the texts nearest to them.

    Example: mmindex classify ~/Pictures --labels labels.txt -k 3
    """
    from mmindex.insight.classify import report_on
    from mmindex.insight.truth import known_truth
    from mmindex.search.vectorize import open_vectorizer

    right = known_truth(truth, confusion is not None, images, where)
    with open_vectorizer(store_path(store), device) as vectorizer:
        classifier = _classifier(vectorizer, labels, templates, scale)
        k = min(k, len(classifier.labels))
        told = right.given(_told(vectorizer, classifier, images, k, right.column, where))
        kept: list[Prediction] = []
        failed = 0
        for number, one in enumerate(told):
            failed += one.error is not None
            _print_one(one, classifier, output_format, number)
            if right.known:
                kept.append(one)
    if right.known:
        report = report_on(kept, classifier.labels)
        _print_report(report, output_format)
        if confusion is not None:
            _draw(report, confusion)
    if failed:
        raise DataError(f"{failed} of the pictures could not be used", "see their `error`")


def _classifier(
    vectorizer: Vectorizer, labels: Path, templates: str | None, scale: float | None
) -> Classifier:
    from mmindex.core.config import EMBEDDED
    from mmindex.insight.classify import Classifier, logit_scale
    from mmindex.insight.labels import find_templates, label_vectors, read_labels

    known = read_labels(labels)
    if templates is None:
        templates = "drawing" if vectorizer.snapshot.encoder.model == EMBEDDED else "photo"
    return Classifier(
        labels=tuple(label.name for label in known),
        vectors=label_vectors(known, find_templates(templates), vectorizer.texts),
        scale=scale if scale is not None else logit_scale(vectorizer.encoder),
    )


def _told(
    vectorizer: Vectorizer,
    classifier: Classifier,
    images: list[str] | None,
    k: int,
    column: str | None,
    where: str | None,
) -> Iterable[Prediction]:
    from mmindex.insight.classify import classify_corpus, classify_files
    from mmindex.insight.truth import expand
    from mmindex.search.filters import select_images

    if images:
        return classify_files(vectorizer, classifier, expand(images), k)
    snapshot = vectorizer.snapshot
    rows = None
    if where is not None:
        rows = select_images(snapshot, where)
    return classify_corpus(snapshot, classifier, k, truth=column, rows=rows)


def _print_one(
    one: Prediction, classifier: Classifier, form: Literal["table", "json", "tsv"], number: int
) -> None:
    from mmindex.core.display import inert_json, visible
    from mmindex_cli.output import print_line, tsv_cell

    names = [classifier.labels[label] for label in one.labels]
    if form == "json":
        record: dict[str, object] = {
            "id": one.id,
            "labels": [
                {"label": name, "probability": round(share, 6)}
                for name, share in zip(names, one.shares, strict=True)
            ],
        }
        record |= {} if one.truth is None else {"truth": one.truth}
        record |= {} if one.error is None else {"error": one.error}
        print_line(inert_json(record), form)
    elif form == "tsv":
        if number == 0:
            print_line("id\trank\tlabel\tprobability\ttruth\terror", form)
        rest = f"\t{tsv_cell(one.truth or '')}\t{tsv_cell(one.error or '')}"
        for rank, (name, share) in enumerate(zip(names, one.shares, strict=True), start=1):
            print_line(f"{tsv_cell(one.id)}\t{rank}\t{tsv_cell(name)}\t{share:.6f}{rest}", form)
        if not names:
            print_line(f"{tsv_cell(one.id)}\t\t\t{rest}", form)
    else:
        said = ", ".join(
            f"{visible(name)} {100 * share:.1f} %"
            for name, share in zip(names, one.shares, strict=True)
        )
        error = "" if one.error is None else f"error: {visible(one.error)}"
        print_line(f"{visible(one.id)}  {said}{error}", form)


def _print_report(report: LabelReport, form: Literal["table", "json", "tsv"]) -> None:
    from mmindex.core.display import inert_json
    from mmindex_cli.output import print_line

    if form == "json":
        record = {
            "items": report.items,
            "accuracy": report.accuracy,
            f"accuracy@{report.top_k}": report.top_k_accuracy,
            "macro_f1": report.macro_f1,
            "classes": [
                {
                    "label": one.label,
                    "support": one.support,
                    "precision": one.precision,
                    "recall": one.recall,
                    "f1": one.f1,
                }
                for one in report.classes
            ],
            "confusion": report.confusion.tolist(),
        }
        print_line(inert_json({"report": record}), form)
        return
    if form == "table":
        for line in _report_lines(report):
            print_line(line, form)


def _report_lines(report: LabelReport) -> Iterator[str]:
    from wcwidth import wcswidth

    from mmindex_cli.output import fit, pad

    names = [fit(one.label, 40) for one in report.classes]
    width = max(len("macro F1"), *(wcswidth(name) for name in names))
    yield ""
    yield f"{'label':<{width}}  precision  recall      F1  pictures"
    for name, one in zip(names, report.classes, strict=True):
        figures = (_percent(one.precision, 9), _percent(one.recall, 6), _percent(one.f1, 6))
        yield f"{pad(name, width)}  {'  '.join(figures)}  {one.support:>8,}"
    yield f"{'accuracy':<{width}}  {100 * report.accuracy:.1f} % of {report.items:,}"
    if report.top_k > 1:
        yield f"{f'top {report.top_k}':<{width}}  {100 * report.top_k_accuracy:.1f} %"
    yield f"{'macro F1':<{width}}  {100 * report.macro_f1:.1f} %"


def _percent(value: float | None, width: int) -> str:
    return f"{'-' if value is None else f'{100 * value:.1f}':>{width}}"


def _draw(report: LabelReport, path: Path) -> None:
    from mmindex.core.progress import get_logger
    from mmindex.pages.confusion import plot_confusion

    note = plot_confusion(report, path)
    if note:
        get_logger("classify").warning("some letters are drawn as boxes", note=note)
