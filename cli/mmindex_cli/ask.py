"""``ask`` and ``annotate``: questions about images, and instructions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex.core.display import visible
from mmindex.core.errors import DataError, UsageError
from mmindex_cli.common import store_path
from mmindex_cli.options import DeviceOption, StoreOption, TextFormat, WhereOption
from mmindex_cli.tables import Target, facts_of, report_lines, report_record
from mmindex_cli.vqa import answer_questions, check_questions

if TYPE_CHECKING:
    from mmindex.api.index import Index
    from mmindex.decoder.writer import Ranked
    from mmindex_cli.output import Form

SomeImageOption = Annotated[
    str | None,
    typer.Option("--image", metavar="IMAGE", help="A file, or the uri or id of an indexed image."),
]
CorpusOption = Annotated[bool, typer.Option("--corpus", help="Use all indexed images.")]
TableOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE.parquet", help="New file for the texts from --corpus."),
]
BeamsOption = Annotated[
    int,
    typer.Option(
        min=1,
        max=32,
        help="Number of texts to compare at each step (beam search); more take longer.",
    ),
]
QuestionArgument = Annotated[
    str | None, typer.Argument(metavar="QUESTION", help='For example "how many boats are there?".')
]
QuestionsOption = Annotated[
    Path | None,
    typer.Option(
        "--questions",
        metavar="FILE.json",
        help="With --corpus, answer the questions in this file (VQA v2 format).",
    ),
]
AnnotationsOption = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        metavar="FILE.json",
        help="With --questions, compare the answers with those in this file (VQA v2 format), and "
        "print the accuracy.",
    ),
]
AnswersOption = Annotated[
    Path | None,
    typer.Option("--answers", metavar="FILE", help="Rank the answers in this file, one per line."),
]
PromptOption = Annotated[
    str, typer.Option("--prompt", help='An instruction, for example "list the animals".')
]


def ask(
    question: QuestionArgument = None,
    image: SomeImageOption = None,
    answers: AnswersOption = None,
    corpus: CorpusOption = False,
    questions: QuestionsOption = None,
    annotations: AnnotationsOption = None,
    out: TableOption = None,
    where: WhereOption = None,
    beams: BeamsOption = 1,
    output_format: TextFormat = "text",
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Answer a question about an image, or about all indexed images.

    The answers are written by the decoder of the model. The embedded model has one for drawn
    scenes.

    Example: mmindex ask --image boats.jpg "how many boats are there?"
    """
    import mmindex

    target = Target(image, corpus, out, where, beams)
    if questions is not None or annotations is not None:
        others = question is not None or answers is not None
        asked = check_questions(target, questions, others=others)
        with mmindex.open(store_path(store), device=device) as index:
            answer_questions(index, target, asked, annotations, output_format)
        return
    if question is None:
        raise UsageError("no question", 'for example: mmindex ask --image F "how many boats?"')
    given = None if answers is None else _read_answers(answers)
    if given is not None and image is None:
        raise UsageError("`answers` are ranked for one image", "add `image`")
    with mmindex.open(store_path(store), device=device) as index:
        if given is None:
            written(index, question, "answer", target, output_format)
            return
        ranked = index.rank_answers(image or "", question, given)
        facts = facts_of(index)
    _print_ranked(ranked, {"image": image, "question": question}, facts, output_format)


def annotate(
    prompt: PromptOption,
    image: SomeImageOption = None,
    corpus: CorpusOption = False,
    out: TableOption = None,
    where: WhereOption = None,
    beams: BeamsOption = 1,
    output_format: TextFormat = "text",
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Follow an instruction about an image, or about all indexed images.

    The text is written by the decoder of the model. The embedded model has one for drawn scenes.

    Example: mmindex annotate --image farm.jpg --prompt "list the animals"
    """
    import mmindex

    target = Target(image, corpus, out, where, beams)
    with mmindex.open(store_path(store), device=device) as index:
        written(index, prompt, "annotation", target, output_format)


def written(index: Index, prompt: str | None, name: str, target: Target, form: Form) -> None:
    """Write about one image to stdout, or about all images to a file."""
    from mmindex_cli.output import emit

    if target.out is not None:
        report = index.ask_all(
            prompt, out=target.out, where=target.where, beams=target.beams, column=name
        )
        emit([report], form, text=lambda _: report_lines(report), json=report_record)
        return
    found = index.ask(target.image or "", prompt, beams=target.beams)
    asked = {} if prompt is None else {"question": prompt}
    record = {"image": target.image, **asked, name: found.text, "score": round(found.score, 6)}
    facts = facts_of(index)
    emit([found], form, text=lambda _: [visible(found.text)], json=lambda _: record | facts)


def _print_ranked(
    ranked: list[Ranked], asked: Mapping[str, object], facts: Mapping[str, object], form: Form
) -> None:
    from mmindex_cli.output import emit

    answers = [{"answer": one.answer, "score": round(one.score, 6)} for one in ranked]
    emit(
        [ranked],
        form,
        text=lambda _: (f"{one.score:7.3f}  {visible(one.answer)}" for one in ranked),
        json=lambda _: {**asked, "answers": answers, **facts},
    )


def _read_answers(path: Path) -> list[str]:
    from mmindex.insight.pairs import read_lines

    found = list(dict.fromkeys(line.strip() for _, line in read_lines(path)))
    if not found:
        raise DataError(f"{path}: no answers", "write one answer per line")
    return found
