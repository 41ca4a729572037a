"""``query``: search the published version by text or by picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

from mmindex.core.errors import DataError, UsageError, os_errors
from mmindex_cli.common import StoreOption, store_path
from mmindex_cli.options import DeviceOption, WhereOption

if TYPE_CHECKING:
    from mmindex.core.modality import Modality
    from mmindex.search.hits import Limit
    from mmindex.search.parts import Question
    from mmindex.search.query import Answer, Session

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="What to look for; the words are joined into one text."),
]
ImageOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE_OR_URI_OR_ID",
        help="Ask with a picture: a file, or one of the corpus. May be repeated: more like these.",
    ),
]
LikeOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="As --image for every line of a file: paths, uris, ids; - is stdin."
    ),
]
PlusOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT_OR_IMAGE",
        help="Also wanted: a picture where it is a file, or an id or uri of the corpus, else a "
        "text (text:... and image:... say which). May be repeated.",
    ),
]
MinusOption = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT_OR_IMAGE", help="Not wanted; otherwise as --plus."),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        metavar="W,W,...",
        help="How much each part counts: the text, each --image, each --plus, then each --minus "
        "(those may be left out). [default: wanted parts alike, unwanted ones a quarter of them]",
    ),
]
OthersOption = Annotated[
    bool, typer.Option("--others", help="Leave out the pictures asked with themselves.")
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
        help="What to find. [default: image; for one picture alone text, if there are captions]"
    ),
]
_MAX_HITS = 2**31 - 1  # any corpus fits; a number beyond 64 bits is no number to count with
HitsOption = Annotated[int, typer.Option("-k", min=1, max=_MAX_HITS, help="Hits wanted.")]
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


def query(
    words: WordsArgument = None,
    image: ImageOption = None,
    like: LikeOption = None,
    plus: PlusOption = None,
    minus: MinusOption = None,
    weights: WeightsOption = None,
    others: OthersOption = False,
    queries: QueriesOption = None,
    to: ToOption = None,
    where: WhereOption = None,
    k: HitsOption = 10,
    min_score: MinScoreOption = None,
    output_format: FormatOption = "table",
    html: HtmlOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Find images or captions by a text, by pictures, or by both.

    Example: mmindex query a red bus --minus people --where "width >= 640" -k 5
    """
    from mmindex.core.modality import Modality
    from mmindex.search.hits import Limit
    from mmindex.search.query import open_session
    from mmindex_cli.output import print_answers

    asked = _Asked(" ".join(words or ()), tuple(image or ()), like, tuple(plus or ()),
                   tuple(minus or ()), weights, others, queries)  # fmt: skip
    asked.check(html)
    side, limit = Modality(to) if to else None, Limit(k, min_score)
    with open_session(store_path(store), device, where) as session:
        answers = asked.answers(session, side, limit)
        if html is not None:
            answers = _with_page(session, answers, html)
        if failed := print_answers(answers, output_format):
            raise DataError(f"{failed} of the queries could not be answered", "see their `error`")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line asks: one question of one or more parts, or a file of texts."""

    text: str
    images: tuple[str, ...]
    like: Path | None
    plus: tuple[str, ...]
    minus: tuple[str, ...]
    weights: str | None
    others: bool
    queries: Path | None

    def check(self, html: Path | None) -> None:
        wanted = bool(self.text or self.images or self.like or self.plus)
        if wanted == (self.queries is not None):
            what = "not both" if wanted else "nothing is asked"
            raise UsageError(
                f"ask with a text, --image, --like or --plus, or else with --queries: {what}",
                "mmindex query a red bus; mmindex query --image bus.jpg",
            )
        if self.queries is not None and (self.minus or self.weights or self.others):
            raise UsageError(
                "--minus, --weights and --others belong to one query, not to --queries",
                "leave them out",
            )
        if html is not None and self.queries is not None:
            raise UsageError(
                "--html shows the answer of one query", "leave out --html or --queries"
            )

    def answers(self, session: Session, to: Modality | None, limit: Limit) -> Iterator[Answer]:
        if self.queries is not None:
            from mmindex.search.query import read_lines

            with _lines(self.queries) as file:
                yield from session.lines(read_lines(file), to, limit)
        else:
            yield session.ask(self.question(session), to, limit)

    def question(self, session: Session) -> Question:
        from mmindex.core.modality import Modality
        from mmindex.search.fusion import parse_weights
        from mmindex.search.parts import Part, Question, read_part

        texts = (Part(Modality.TEXT, self.text),) if self.text else ()
        pictures = (*self.images, *_names(self.like))
        return Question(
            wanted=(
                *texts,
                *(Part(Modality.IMAGE, picture) for picture in pictures),
                *(read_part(part, session.snapshot) for part in self.plus),
            ),
            unwanted=tuple(read_part(part, session.snapshot) for part in self.minus),
            weights=parse_weights(self.weights) if self.weights is not None else None,
            others=self.others,
        )


def _names(path: Path | None) -> list[str]:
    """The pictures that a file lists, one a line."""
    if path is None:
        return []
    from mmindex.search.query import MAX_LINE, read_lines

    with _lines(path) as file:
        lines = list(read_lines(file))
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE:
            raise DataError(f"{path}:{number}: longer than {MAX_LINE:,} bytes")
    names = [line.rstrip(b"\r\n").decode("utf-8", "surrogateescape") for line in lines]
    if not any(names):
        raise DataError(f"{path}: no picture in it", "one path, uri or id a line")
    return [name for name in names if name]


def _lines(path: Path) -> AbstractContextManager[BinaryIO]:
    if str(path) == "-":
        return nullcontext(sys.stdin.buffer)
    with os_errors(path):
        return path.open("rb")


def _with_page(session: Session, answers: Iterator[Answer], target: Path) -> Iterator[Answer]:
    from mmindex.pages.gallery import gallery_page
    from mmindex.pages.page import write_page

    for answer in answers:
        write_page(target, gallery_page(session.snapshot, answer))
        yield answer
