"""``ask`` and ``annotate``: questions about images, and instructions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex.core.display import visible
from mmindex.core.errors import DataError, UsageError
from mmindex_cli.common import store_path
from mmindex_cli.options import DeviceOption, StoreOption, TextFormat, WhereOption

if TYPE_CHECKING:
    from mmindex.api.index import Index
    from mmindex.decoder.table import TableReport
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
    str, typer.Argument(metavar="QUESTION", help='For example "how many boats are there?".')
]
AnswersOption = Annotated[
    Path | None,
    typer.Option("--answers", metavar="FILE", help="Rank the answers in this file, one per line."),
]
PromptOption = Annotated[
    str, typer.Option("--prompt", help='An instruction, for example "list the animals".')
]


@dataclass(frozen=True, slots=True)
class Target:
    """The images to write about.

    Attributes:
        image: one image; None with ``corpus``.
        corpus: whether to write about all images that match ``where``.
        out: the file for the texts of the corpus.
        where: the condition.
        beams: the width of the beam search.
    """

    image: str | None
    corpus: bool
    out: Path | None
    where: str | None
    beams: int

    def __post_init__(self) -> None:
        if self.corpus == (self.image is not None):
            raise UsageError("name one image, or all of them", "use `image` or `corpus`")
        if self.corpus and self.out is None:
            raise UsageError("`corpus` needs a file for the texts", "add `out`")
        if not self.corpus and (self.out is not None or self.where is not None):
            raise UsageError("`out` and `where` need `corpus`", "add `corpus`")


def ask(
    question: QuestionArgument,
    image: SomeImageOption = None,
    answers: AnswersOption = None,
    corpus: CorpusOption = False,
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
    from mmindex_cli.output import emit

    target = Target(image, corpus, out, where, beams)
    given = None if answers is None else _read_answers(answers)
    if given is not None and image is None:
        raise UsageError("`answers` are ranked for one image", "add `image`")
    with mmindex.open(store_path(store), device=device) as index:
        if given is None:
            written(index, question, "answer", target, output_format)
            return
        ranked = index.rank_answers(image or "", question, given)
        facts = _facts(index)
    emit(
        [ranked],
        output_format,
        text=lambda _: (f"{one.score:7.3f}  {visible(one.answer)}" for one in ranked),
        json=lambda _: {
            "image": image,
            "question": question,
            "answers": [{"answer": one.answer, "score": round(one.score, 6)} for one in ranked],
            **facts,
        },
    )


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
        emit([report], form, text=lambda _: _lines(report), json=_record)
        return
    found = index.ask(target.image or "", prompt, beams=target.beams)
    asked = {} if prompt is None else {"question": prompt}
    record = {"image": target.image, **asked, name: found.text, "score": round(found.score, 6)}
    facts = _facts(index)
    emit([found], form, text=lambda _: [visible(found.text)], json=lambda _: record | facts)


def _facts(index: Index) -> dict[str, str]:
    info = index.snapshot.encoder
    return {"model": info.model, "fingerprint": info.fingerprint}


def _lines(report: TableReport) -> Iterator[str]:
    yield f"{visible(str(report.path))}  {report.images:,} images"
    if report.failed:
        yield f"{report.failed:,} images cannot be used: see the column error"


def _record(report: TableReport) -> dict[str, object]:
    return {"file": str(report.path), "images": report.images, "failed": report.failed}


def _read_answers(path: Path) -> list[str]:
    from mmindex.insight.pairs import read_lines

    found = list(dict.fromkeys(line.strip() for _, line in read_lines(path)))
    if not found:
        raise DataError(f"{path}: no answers", "write one answer per line")
    return found
