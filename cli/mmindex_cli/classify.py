"""``classify``: choose the best label for each image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex.core.display import visible
from mmindex.core.errors import DataError, UsageError
from mmindex_cli.common import store_path
from mmindex_cli.options import DeviceOption, StoreOption, TableFormat, WhereOption

if TYPE_CHECKING:
    from mmindex.insight.classify import Classifier, Prediction
    from mmindex.insight.metrics import LabelReport
    from mmindex.search.filters import Rows
    from mmindex.search.vectorize import Vectorizer
    from mmindex_cli.output import Cell, Form

ImagesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IMAGE",
        help="Files, folders, or uris and ids of indexed images. [default: all indexed images]",
    ),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file with one label per line, or a .csv or .tsv with a column `label` or `name`. "
        "After a tab, add words to use instead of the label, separated by |. Or a file written "
        "with --learn.",
    ),
]
LearnOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Learn labels from the images in a .csv, .tsv or .jsonl file with the columns image, "
        "label, and write them to --out. No images are classified.",
    ),
]
LearnedOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE.safetensors", help="With --learn, the file to write."),
]
TemplatesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME_OR_FILE",
        help="Prompts for the labels: photo, drawing, plain, or a file with one prompt per line "
        "({} is the label). [default: drawing for the embedded model, otherwise photo]",
    ),
]
TopOption = Annotated[int, typer.Option("-k", min=1, help="Number of labels per image.")]
TruthOption = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN_OR_FILE",
        help="The correct labels: a column of the images table, `folder` (the name of the "
        "image's folder), or a .csv, .tsv or .jsonl file with the columns image, label.",
    ),
]
ConfusionOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE.png", help="Also draw the confusion matrix. Requires --truth."),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=1e6, help="Logit scale for the probabilities. [default: from the model]"
    ),
]


def classify(
    images: ImagesArgument = None,
    labels: LabelsOption = None,
    templates: TemplatesOption = None,
    k: TopOption = 1,
    truth: TruthOption = None,
    confusion: ConfusionOption = None,
    where: WhereOption = None,
    scale: ScaleOption = None,
    learn: LearnOption = None,
    out: LearnedOption = None,
    output_format: TableFormat = "table",
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Label images without training: each image gets the label with the nearest text.

    With --learn, labels are learned from a few images instead.

    Example: mmindex classify ~/Pictures --labels labels.txt -k 3
    """
    from mmindex.insight.classify import report_on
    from mmindex.insight.truth import known_truth
    from mmindex.search.vectorize import open_vectorizer
    from mmindex_cli.learning import Learning, print_lesson

    if learn is not None:
        if images or k != 1 or any(one is not None for one in (truth, confusion, where)):
            raise UsageError(
                "`learn` does not classify images",
                "run `classify` again, with the new file as `labels`",
            )
        learning = Learning(learn, labels, templates, scale, _target(out))
        with open_vectorizer(store_path(store), device) as vectorizer:
            lesson = learning.run(vectorizer)
        print_lesson(lesson, learning.out, vectorizer.snapshot.encoder, output_format)
        return
    if out is not None:
        raise UsageError("`out` needs `learn`", "remove `out`, or add `learn`")
    if labels is None:
        raise UsageError("missing option '`labels`'", "`mmindex classify --help` shows the usage")
    right = known_truth(truth, confusion is not None, images, where)
    with open_vectorizer(store_path(store), device) as vectorizer:
        rows = _rows(vectorizer, where)
        classifier = _classifier(vectorizer, labels, templates, scale)
        k = min(k, len(classifier.labels))
        told = right.given(_told(vectorizer, classifier, images, k, right.column, rows))
        kept = _print_all(told, classifier, output_format, keep=right.known)
    if right.known:
        report = report_on(kept, classifier.labels)
        _print_report(report, output_format)
        if confusion is not None:
            _draw(report, confusion)
    if failed := sum(one.error is not None for one in kept):
        raise DataError(f"{failed} of the images cannot be used", "see their `error`")


def _target(out: Path | None) -> Path:
    if out is None:
        raise UsageError(
            "`learn` needs a file for the labels", "for example `out=labels.safetensors`"
        )
    return out


def _rows(vectorizer: Vectorizer, where: str | None) -> Rows | None:
    """Return the rows that the condition selects; report errors before the model is loaded."""
    if where is None:
        return None
    from mmindex.search.filters import select_images

    return select_images(vectorizer.snapshot, where)


def _classifier(
    vectorizer: Vectorizer, labels: Path, templates: str | None, scale: float | None
) -> Classifier:
    from mmindex.insight.labels import read_labels
    from mmindex.insight.learned import is_learned, load_learned
    from mmindex.insight.learning import zero_shot

    if not is_learned(labels):
        return zero_shot(vectorizer, read_labels(labels), templates, scale)
    if templates is not None or scale is not None:
        raise UsageError(
            "`templates` and `scale` cannot be used with learned labels", "remove them"
        )
    return load_learned(labels, vectorizer.snapshot.encoder)


def _told(
    vectorizer: Vectorizer,
    classifier: Classifier,
    images: list[str] | None,
    k: int,
    column: str | None,
    rows: Rows | None,
) -> Iterable[Prediction]:
    from mmindex.insight.classify import classify_corpus, classify_files
    from mmindex.insight.truth import expand

    if images:
        return classify_files(vectorizer, classifier, expand(images), k)
    return classify_corpus(vectorizer.snapshot, classifier, k, truth=column, rows=rows)


def _print_all(
    told: Iterable[Prediction], classifier: Classifier, form: Form, *, keep: bool
) -> list[Prediction]:
    """Print predictions as they arrive and return those needed later: all, or the failed ones."""
    from mmindex_cli.output import emit

    kept: list[Prediction] = []

    def noted() -> Iterator[Prediction]:
        for one in told:
            if keep or one.error is not None:
                kept.append(one)
            yield one

    names = classifier.labels
    emit(
        noted(),
        form,
        text=lambda some: (_line(one, names) for one in some),
        json=lambda one: _record(one, names),
        tsv=(_COLUMNS, lambda one: _cells(one, names)),
    )
    return kept


_COLUMNS = ("id", "rank", "label", "probability", "truth", "error")


def _record(one: Prediction, names: Sequence[str]) -> dict[str, object]:
    record: dict[str, object] = {
        "id": one.id,
        "labels": [
            {"label": names[label], "probability": round(share, 6)}
            for label, share in zip(one.labels, one.shares, strict=True)
        ],
    }
    record |= {} if one.truth is None else {"truth": one.truth}
    return record | ({} if one.error is None else {"error": one.error})


def _cells(one: Prediction, names: Sequence[str]) -> Iterator[Sequence[Cell]]:
    for rank, (label, share) in enumerate(zip(one.labels, one.shares, strict=True), start=1):
        yield one.id, rank, names[label], share, one.truth, one.error
    if not one.labels:
        yield one.id, None, None, None, one.truth, one.error


def _line(one: Prediction, names: Sequence[str]) -> str:
    if one.error is not None:
        return f"{visible(one.id)}  error: {visible(one.error)}"
    shares = zip(one.labels, one.shares, strict=True)
    told = ", ".join(f"{visible(names[label])} {100 * share:.1f} %" for label, share in shares)
    return f"{visible(one.id)}  {told}"


def _print_report(report: LabelReport, form: Form) -> None:
    from mmindex_cli.output import emit

    if form != "tsv":
        emit(
            [report],
            form,
            text=lambda _: _report_lines(report),
            json=lambda one: {"report": _report_record(one)},
        )


def _report_record(report: LabelReport) -> dict[str, object]:
    return {
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
        "left_out": dict(report.left_out),
    }


def _report_lines(report: LabelReport) -> Iterator[str]:
    from wcwidth import wcswidth

    from mmindex_cli.fitting import fit, pad

    names = [fit(one.label, 40) for one in report.classes]
    width = max(len("macro F1"), *(wcswidth(name) for name in names))
    yield ""
    yield f"{'label':<{width}}  precision  recall      F1    images"
    for name, one in zip(names, report.classes, strict=True):
        figures = (_percent(one.precision, 9), _percent(one.recall, 6), _percent(one.f1, 6))
        yield f"{pad(name, width)}  {'  '.join(figures)}  {one.support:>8,}"
    yield f"{'accuracy':<{width}}  {100 * report.accuracy:.1f} % of {report.items:,}"
    if report.top_k > 1:
        yield f"{f'top {report.top_k}':<{width}}  {100 * report.top_k_accuracy:.1f} %"
    yield f"{'macro F1':<{width}}  {100 * report.macro_f1:.1f} %"
    for why, count in report.left_out.items():
        yield f"left out: {count:,} images {visible(why)}"


def _percent(value: float | None, width: int) -> str:
    return f"{'-' if value is None else f'{100 * value:.1f}':>{width}}"


def _draw(report: LabelReport, path: Path) -> None:
    from mmindex.core.progress import get_logger
    from mmindex.pages.confusion import plot_confusion

    note = plot_confusion(report, path)
    if note:
        get_logger("classify").warning("some characters are drawn as boxes", note=note)
