"""``query``: search the published version by text or by picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

from mmindex.errors import DataError, UsageError, os_errors
from mmindex_cli.common import StoreOption, store_path

if TYPE_CHECKING:
    from mmindex.records import Modality
    from mmindex.search.hits import Cut
    from mmindex.search.query import Answer, Session

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="What to look for; the words are joined into one text."),
]
ImageOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE_OR_URI_OR_ID", help="Ask with a picture: a file, or one of the corpus."
    ),
]
QueriesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Ask every line of a UTF-8 file, one answer a line; - is stdin."
    ),
]
ToOption = Annotated[
    Literal["image", "text"] | None,
    typer.Option(
        help="What to find. [default: image for a text, text for a picture if there are captions]"
    ),
]
HitsOption = Annotated[int, typer.Option("-k", min=1, help="Hits wanted.")]
MinScoreOption = Annotated[
    float | None,
    typer.Option(min=-1.0, max=1.0, help="Leave out hits with a lower cosine similarity."),
]
FormatOption = Annotated[
    Literal["table", "json", "tsv"],
    typer.Option(
        "--format",
        help="table for people; json: one object a line; tsv: one hit a line, with \\t \\n "
        "escapes, and a ' before text that a spreadsheet would run as a formula.",
    ),
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write the hits as a web page.")
]
DeviceOption = Annotated[str, typer.Option(help="Where the model runs: auto, cpu, cuda, cuda:N.")]


def query(
    words: WordsArgument = None,
    image: ImageOption = None,
    queries: QueriesOption = None,
    to: ToOption = None,
    k: HitsOption = 10,
    min_score: MinScoreOption = None,
    output_format: FormatOption = "table",
    html: HtmlOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Find images or captions by a text, or by a picture.

    Example: mmindex query a red bus -k 5 --html hits.html
    """
    from mmindex.records import Modality
    from mmindex.search.hits import Cut
    from mmindex.search.query import open_session
    from mmindex_cli.output import print_answers

    asked = _Asked(" ".join(words or ()), image, queries)
    asked.check(html)
    side, cut = Modality(to) if to else None, Cut(k, min_score)
    with open_session(store_path(store), device) as session:
        answers = asked.answers(session, side, cut)
        if html is not None:
            answers = _with_page(session, answers, html)
        if failed := print_answers(answers, output_format):
            raise DataError(f"{failed} of the queries could not be answered", "see their `error`")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line asks: one text, one picture, or a file of texts."""

    text: str
    image: str | None
    queries: Path | None

    def check(self, html: Path | None) -> None:
        given = [bool(self.text), self.image is not None, self.queries is not None]
        if sum(given) != 1:
            raise UsageError(
                f"ask with a text, --image or --queries: one of them, not {sum(given)}",
                "mmindex query a red bus; mmindex query --image bus.jpg",
            )
        if html is not None and self.queries is not None:
            raise UsageError(
                "--html shows the answer of one query", "leave out --html or --queries"
            )

    def answers(self, session: Session, to: Modality | None, cut: Cut) -> Iterator[Answer]:
        if self.queries is not None:
            with _lines(self.queries) as lines:
                yield from session.lines(lines, to, cut)
        elif self.image is not None:
            yield session.image(self.image, to, cut)
        else:
            yield session.text(self.text, to, cut)


def _lines(path: Path) -> AbstractContextManager[BinaryIO]:
    if str(path) == "-":
        return nullcontext(sys.stdin.buffer)
    with os_errors(path):
        return path.open("rb")


def _with_page(session: Session, answers: Iterator[Answer], target: Path) -> Iterator[Answer]:
    from mmindex.search.gallery import gallery_page, write_page

    for answer in answers:
        write_page(target, gallery_page(session.published, answer))
        yield answer
