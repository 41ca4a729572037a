"""``query``: search the published version by text, by image, by both, or by keywords."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, TypedDict

import typer

from mmindex.core.errors import DataError, UsageError, os_errors
from mmindex_cli.common import store_path
from mmindex_cli.options import (
    DeviceOption,
    NullOption,
    PageOption,
    PathsFormat,
    StoreOption,
    paths_form,
)

if TYPE_CHECKING:
    from mmindex.api import Hits, Index

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Text to search for. Several words form one text."),
]
KeywordsOption = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="Find images by these words in captions, file names and metadata, without the "
        "model. There is no query syntax: quotes, AND and * have no special meaning.",
    ),
]
HybridOption = Annotated[
    bool,
    typer.Option("--hybrid", help="Rank images by the meaning of the text and by its words."),
]
ImageOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="IMAGE",
        help="Search with an image: a file, or the uri or id of an indexed image. Repeat this "
        "option to find images similar to several others.",
    ),
]
LikeOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Search with the images in a file, one path, uri or id per line; - reads stdin.",
    ),
]
PlusOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT_OR_IMAGE",
        help="Add this to the query. A file, or the uri or id of an indexed image, is an image; "
        "anything else is a text. To choose, use the prefix text: or image:. You can repeat this "
        "option.",
    ),
]
MinusOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT_OR_IMAGE",
        help="Subtract this from the query. Takes the same values as --plus.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        metavar="W,W,...",
        help="Weights of the parts, in this order: the text, each --image, each --plus, each "
        "--minus (optional). [default: equal, in total 1 for wanted and 0.25 for unwanted parts]",
    ),
]
OthersOption = Annotated[
    bool, typer.Option("--others", help="Leave out the images that you search with.")
]
QueriesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Use each line of a UTF-8 text file as a query; - reads stdin."
    ),
]
KeywordQueriesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Use each line of a UTF-8 text file as --keywords; - reads stdin."
    ),
]
ToOption = Annotated[
    Literal["image", "text"] | None,
    typer.Option(
        help="What to find. [default: image; for a single image, captions if there are any]"
    ),
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help="Find only images that match an SQL condition on their columns, or captions of such "
        "images: \"width >= 640 and split = 'val'\".",
    ),
]
_EXAMPLE = "for example: mmindex query a red bus, or mmindex query --image bus.jpg"
_MAX_HITS = 2**31 - 1  # enough for any corpus; numbers beyond 64 bits would overflow
HitsOption = Annotated[int, typer.Option("-k", min=1, max=_MAX_HITS, help="Number of hits.")]
MinScoreOption = Annotated[
    float | None,
    typer.Option(min=-1.0, max=1.0, help="Leave out hits with a lower score (cosine similarity)."),
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
        help="Sort the hits by a column of the images, for example taken; COLUMN:desc sorts in "
        "descending order. The -k most similar hits are selected first.",
    ),
]
DistinctOption = Annotated[
    bool,
    typer.Option(
        "--distinct",
        help="Leave out near-duplicates of better hits, and show how many there are.",
    ),
]
GoodOption = Annotated[
    bool,
    typer.Option(
        "--good",
        help="Leave out weak hits: those that are no better than the hits of queries without an "
        "answer. `mmindex evaluate` shows how many right answers are lost.",
    ),
]
LocationOption = Annotated[
    bool,
    typer.Option(
        "--with-location",
        help="Allow location columns (lat, lon) in --columns.",
    ),
]
PreviewOption = Annotated[
    bool,
    typer.Option("--preview", help="Show thumbnails in the terminal (kitty, iTerm2 or sixel)."),
]


def query(
    words: WordsArgument = None,
    keywords: KeywordsOption = None,
    hybrid: HybridOption = False,
    image: ImageOption = None,
    like: LikeOption = None,
    plus: PlusOption = None,
    minus: MinusOption = None,
    weights: WeightsOption = None,
    others: OthersOption = False,
    queries: QueriesOption = None,
    keyword_queries: KeywordQueriesOption = None,
    to: ToOption = None,
    where: WhereOption = None,
    k: HitsOption = 10,
    min_score: MinScoreOption = None,
    columns: ColumnsOption = None,
    with_location: LocationOption = False,
    sort: SortOption = None,
    distinct: DistinctOption = False,
    good: GoodOption = False,
    preview: PreviewOption = False,
    output_format: PathsFormat = "table",
    null: NullOption = False,
    html: PageOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Find images or captions by text, by image, by both, or by keywords.

    Example: mmindex query a red bus --minus people --where "width >= 640" -k 5
    """
    import mmindex
    from mmindex_cli.answers import View, print_answers

    asked = _Asked(" ".join(words or ()), tuple(image or ()), like, tuple(plus or ()),
                   tuple(minus or ()), weights, others, queries, keyword_queries, keywords,
                   hybrid)  # fmt: skip
    asked.check(html)
    form, end = paths_form(output_format, null)
    view = View(
        columns.split(",") if columns else (), _image_drawer() if preview else None, distinct
    )
    wanted = _Wanted(
        k=k, where=where, min_score=min_score, sort=sort, distinct=distinct,
        good=good, columns=view.columns or None, to=to,
    )  # fmt: skip
    with mmindex.open(store_path(store), device=device, with_location=with_location) as index:
        answers = asked.answers(index, wanted)
        if html is not None:
            answers = _with_page(answers, html)
        if failed := print_answers(answers, form, view, end):
            raise DataError(f"{failed} of the queries failed", "see their `error`")


def _image_drawer() -> Callable[[str], str]:
    from mmindex_cli.preview import image_drawer

    return image_drawer()


class _Wanted(TypedDict):
    """The arguments of :meth:`mmindex.Index.search` that select results."""

    k: int
    where: str | None
    min_score: float | None
    sort: str | None
    distinct: bool
    good: bool
    columns: Sequence[str] | None
    to: Literal["image", "text"] | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """The query on the command line: one query with one or more parts, or a file of texts."""

    text: str
    images: tuple[str, ...]
    like: Path | None
    plus: tuple[str, ...]
    minus: tuple[str, ...]
    weights: str | None
    others: bool
    queries: Path | None
    keyword_queries: Path | None
    keywords: str | None
    hybrid: bool

    def check(self, html: Path | None) -> None:
        if self.text and not self.text.strip():
            raise UsageError("the query is empty", "enter a text, for example: a red bus")
        wanted = bool(
            self.text or self.images or self.like or self.plus or self.keywords is not None
        )
        if not wanted and self.lines is None:
            raise UsageError(
                "nothing to search for: pass a text, --keywords, --image, --like, --plus or "
                "--queries",
                _EXAMPLE,
            )
        if self.lines is None:
            return
        option = "--queries" if self.queries is not None else "--keyword-queries"
        if wanted or (self.queries is not None and self.keyword_queries is not None):
            raise UsageError(
                f"{option} cannot be combined with a text, --keywords, --image, --like or --plus"
                if wanted
                else "--queries cannot be combined with --keyword-queries",
                _EXAMPLE,
            )
        if self.minus or self.weights or self.others:
            raise UsageError(
                f"--minus, --weights and --others cannot be combined with {option}",
                "remove these options",
            )
        if html is not None:
            raise UsageError(f"--html cannot be combined with {option}", "use only one of them")

    @property
    def lines(self) -> Path | None:
        """The file whose lines are queries."""
        return self.queries or self.keyword_queries

    def answers(self, index: Index, wanted: _Wanted) -> Iterator[Hits]:
        if self.lines is not None:
            from mmindex.search.query import read_lines

            words_alone = self.keyword_queries is not None
            with _lines(self.lines) as file:
                yield from index.search_many(
                    read_lines(file), keywords=words_alone, hybrid=self.hybrid, **wanted,
                    errors="keep",
                )  # fmt: skip
        else:
            yield index.search(
                self.text or None,
                keywords=self.keywords,
                hybrid=self.hybrid,
                image=[*self.images, *_names(self.like)],
                plus=self.plus,
                minus=self.minus,
                weights=self._weights(),
                others=self.others,
                **wanted,
            )

    def _weights(self) -> Sequence[float] | None:
        from mmindex.search.fusion import parse_weights

        return None if self.weights is None else parse_weights(self.weights)


def _names(path: Path | None) -> list[str]:
    """Return the images that a file lists, one per line."""
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
        raise DataError(f"{path}: contains no images", "write one path, uri or id per line")
    return [name for name in names if name]


def _lines(path: Path) -> AbstractContextManager[BinaryIO]:
    if str(path) == "-":
        return nullcontext(sys.stdin.buffer)
    with os_errors(path):
        return path.open("rb")


def _with_page(answers: Iterator[Hits], target: Path) -> Iterator[Hits]:
    for hits in answers:
        hits.to_html(target)
        yield hits
