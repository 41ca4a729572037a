"""``ask --questions``: answer a file of questions, and measure the accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from wcwidth import wcswidth

from mmindex.core.errors import UsageError
from mmindex_cli.fitting import fit, pad
from mmindex_cli.tables import facts_of, report_lines, report_record

if TYPE_CHECKING:
    from mmindex.api.index import Index
    from mmindex.decoder.table import TableReport
    from mmindex.decoder.vqa import VqaReport
    from mmindex_cli.output import Form
    from mmindex_cli.tables import Target


def check_questions(target: Target, questions: Path | None, *, others: bool) -> Path:
    """Check the options of a file of questions; ``others`` are options for one question.

    Raises:
        UsageError: they cannot be combined.
    """
    if questions is None:
        raise UsageError("`annotations` needs `questions`", "add `questions`")
    if not target.corpus:
        raise UsageError("`questions` needs `corpus`", "replace `image` with `corpus`")
    if target.where is not None:
        raise UsageError("`questions` cannot be combined with `where`", "remove `where`")
    if others:
        raise UsageError(
            "`questions` cannot be combined with a question or `answers`",
            "put all questions into the file",
        )
    return questions


def answer_questions(
    index: Index, target: Target, questions: Path, annotations: Path | None, form: Form
) -> None:
    """Write the answers to a file; print the report and the accuracy."""
    from mmindex_cli.output import emit

    report, accuracy = index.ask_questions(
        questions, out=target.out or "", annotations=annotations, beams=target.beams
    )
    emit(
        [report],
        form,
        text=lambda _: _lines(report, accuracy),
        json=lambda _: {
            **report_record(report, "questions"),
            **({} if accuracy is None else {"accuracy": _record(accuracy)}),
            **facts_of(index),
        },
    )


def _lines(report: TableReport, accuracy: VqaReport | None) -> Iterator[str]:
    yield from report_lines(report, "questions")
    if accuracy is None:
        return
    groups = {**accuracy.by_answer, "all questions": accuracy.overall}
    names = [fit(name, 40) for name in groups]
    width = max(map(wcswidth, names))
    yield ""
    yield f"{'answer':<{width}}  {'asked':>9}  accuracy  majority  blind"
    for name, one in zip(names, groups.values(), strict=True):
        shares = f"{100 * one.decoder:8.1f}  {100 * one.majority:8.1f}  {100 * one.blind:5.1f}"
        yield f"{pad(name, width)}  {one.asked:>9,}  {shares}"
    if accuracy.left_out:
        yield f"left out: {accuracy.left_out:,} questions without an answer or an annotation"


def _record(accuracy: VqaReport) -> dict[str, object]:
    return {
        "all": asdict(accuracy.overall),
        "by_answer_type": {name: asdict(one) for name, one in accuracy.by_answer.items()},
        "by_question_type": {name: asdict(one) for name, one in accuracy.by_question.items()},
        "left_out": accuracy.left_out,
    }
