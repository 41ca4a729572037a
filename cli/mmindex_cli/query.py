"""``query``: search the published version by text or by picture."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

from mmindex.core.errors import DataError, UsageError, os_errors
from mmindex_cli.common import store_path
from mmindex_cli.options import (
    DeviceOption,
    NullOption,
    PageOption,
    PathsFormat,
    StoreOption,
    WhereOption,
    paths_form,
)

if TYPE_CHECKING:
    from mmindex.core.modality import Modality
    from mmindex.pages.gallery import Request
    from mmindex.search.hits import Limit
    from mmindex.search.parts import Question
    from mmindex.search.query import Answer, Session
    from mmindex_cli.answers import View

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="What to look for. Several words make one text."),
]
ImageOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="IMAGE",
        help="Search with a picture: a file, or the uri or id of an indexed image. Repeat it to "
        "find more like several pictures.",
    ),
]
LikeOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Like --image for each line of a file; - reads stdin."),
]
PlusOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT_OR_IMAGE",
        help="Also wanted. A file, or the uri or id of an indexed image, is a picture; anything "
        "else is a text. The prefixes text: and image: decide. Can be repeated.",
    ),
]
MinusOption = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT_OR_IMAGE", help="Not wanted. Same values as --plus."),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        metavar="W,W,...",
        help="Weights of the parts, in this order: the text, each --image, each --plus, each "
        "--minus (optional). [default: equal for wanted parts, a quarter of that for unwanted]",
    ),
]
OthersOption = Annotated[
    bool, typer.Option("--others", help="Leave out the pictures you search with.")
]
QueriesOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Ask each line of a UTF-8 text file; - reads stdin."),
]
ToOption = Annotated[
    Literal["image", "text"] | None,
    typer.Option(
        help="What to find. [default: image; for a single picture, captions if there are any]"
    ),
]
_MAX_HITS = 2**31 - 1  # any corpus fits; a number beyond 64 bits is no number to count with
HitsOption = Annotated[int, typer.Option("-k", min=1, max=_MAX_HITS, help="Number of hits.")]
MinScoreOption = Annotated[
    float | None,
    typer.Option(min=-1.0, max=1.0, help="Leave out hits with a lower cosine similarity."),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,NAME,...",
        help="Also show these columns of the images, for example width,height. "
        "JSON has them under `columns`.",
    ),
]
SortOption = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN[:desc]",
        help="Order the hits by a column of the images, smallest first, for example taken; "
        "COLUMN:desc: largest first. The -k most similar hits are chosen first.",
    ),
]
LocationOption = Annotated[
    bool,
    typer.Option(
        "--with-location",
        help="Allow the places where images were taken (lat, lon) in --columns.",
    ),
]
PreviewOption = Annotated[
    bool,
    typer.Option("--preview", help="Show thumbnails in the terminal (kitty, iTerm2 or sixel)."),
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
    columns: ColumnsOption = None,
    with_location: LocationOption = False,
    sort: SortOption = None,
    preview: PreviewOption = False,
    output_format: PathsFormat = "table",
    null: NullOption = False,
    html: PageOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Find images or captions by text, by pictures, or by both.

    Example: mmindex query a red bus --minus people --where "width >= 640" -k 5
    """
    from mmindex.core.modality import Modality
    from mmindex.search.hits import Limit
    from mmindex.search.query import open_session
    from mmindex_cli.answers import print_answers

    asked = _Asked(" ".join(words or ()), tuple(image or ()), like, tuple(plus or ()),
                   tuple(minus or ()), weights, others, queries)  # fmt: skip
    asked.check(html)
    form, end = paths_form(output_format, null)
    side, limit = Modality(to) if to else None, Limit(k, min_score)
    with open_session(store_path(store), device, where) as session:
        view = _view(session, columns, preview, with_location=with_location)
        order = _order(session, sort)
        answers: Iterator[Answer] = (
            order(answer) for answer in asked.answers(session, side, limit)
        )
        shown = answers
        if html is not None:
            from mmindex.pages.gallery import Request

            shown = _with_page(session, answers, html, Request(min_score, where, html))
        if failed := print_answers(shown, form, view, end):
            raise DataError(f"{failed} of the queries could not be answered", "see their `error`")


def _view(session: Session, columns: str | None, preview: bool, *, with_location: bool) -> View:
    """What to show beside the usual fields."""
    from mmindex.search.columns import check_columns, image_columns
    from mmindex_cli.answers import View

    snapshot, names = session.snapshot, columns.split(",") if columns else []
    check_columns(snapshot, names, with_location=with_location)
    values = functools.partial(image_columns, snapshot, names=names, with_location=with_location)
    picture = None
    if preview:
        from mmindex_cli.preview import picture_drawer

        picture = picture_drawer()
    return View(names, values, picture)


def _order(session: Session, sort: str | None) -> Callable[[Answer], Answer]:
    """What puts an answer's hits into the order asked for; ranks stay those of similarity."""
    if sort is None:
        return lambda answer: answer
    from mmindex.search.columns import read_order, sorted_hits

    order = read_order(session.snapshot, sort)
    return lambda answer: replace(answer, hits=sorted_hits(session.snapshot, answer.hits, order))


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
            raise UsageError(
                "--queries cannot be combined with a text, --image, --like or --plus"
                if wanted
                else "nothing to search for: give a text, --image, --like, --plus or --queries",
                "for example: mmindex query a red bus, or mmindex query --image bus.jpg",
            )
        if self.queries is not None and (self.minus or self.weights or self.others):
            raise UsageError(
                "--minus, --weights and --others cannot be combined with --queries",
                "leave them out",
            )
        if html is not None and self.queries is not None:
            raise UsageError("--html cannot be combined with --queries", "leave out one of them")

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
    """The pictures that a file lists, one on each line."""
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
        raise DataError(f"{path}: names no picture", "put one path, uri or id on each line")
    return [name for name in names if name]


def _lines(path: Path) -> AbstractContextManager[BinaryIO]:
    if str(path) == "-":
        return nullcontext(sys.stdin.buffer)
    with os_errors(path):
        return path.open("rb")


def _with_page(
    session: Session, answers: Iterator[Answer], target: Path, request: Request
) -> Iterator[Answer]:
    from mmindex.pages.gallery import gallery_page
    from mmindex.pages.page import write_page

    for answer in answers:
        write_page(target, gallery_page(session.snapshot, answer, request))
        yield answer
