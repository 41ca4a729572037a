"""``recommend``: recommend images to a person from the person's likes and dislikes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmindex_cli.common import store_path
from mmindex_cli.options import (
    NullOption,
    PageOption,
    PathsFormat,
    StoreOption,
    WhereOption,
    paths_form,
)
from mmindex_cli.query import ColumnsOption, HitsOption, LocationOption

if TYPE_CHECKING:
    from mmindex.api import Index, Recommended
    from mmindex_cli.answers import View
    from mmindex_cli.output import Form

HistoryOption = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="The images that the person liked: one id or uri per line, or a .csv, .tsv or .jsonl "
        "file with a column `id` and optionally `weight` (negative for a dislike) and `time`.",
    ),
]
HalfLifeOption = Annotated[
    float, typer.Option(metavar="DAYS", help="Days after which an entry counts half as much.")
]
InterestsOption = Annotated[
    int,
    typer.Option(
        min=1, max=100, help="Largest number of interests into which the likes are grouped."
    ),
]
DiversityOption = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="0 for the most similar images, up to 1 for the most different ones."
    ),
]


def recommend(
    history: HistoryOption,
    k: HitsOption = 10,
    half_life: HalfLifeOption = 30.0,
    interests: InterestsOption = 3,
    diversity: DiversityOption = 0.2,
    where: WhereOption = None,
    columns: ColumnsOption = None,
    with_location: LocationOption = False,
    output_format: PathsFormat = "table",
    null: NullOption = False,
    html: PageOption = None,
    store: StoreOption = None,
) -> None:
    """Recommend images to a person, based on the images that this person liked and disliked.

    Example: mmindex recommend --history clicks.csv -k 20
    """
    import mmindex
    from mmindex_cli.answers import View

    form, end = paths_form(output_format, null)
    view = View(columns.split(",") if columns else ())
    with mmindex.open(store_path(store), with_location=with_location) as index:
        found = index.recommend(
            history,
            k=k,
            half_life=half_life,
            interests=interests,
            diversity=diversity,
            where=where,
            columns=view.columns or None,
        )
        _warn(found)
        if html is not None:
            found.to_html(html)
        _print(index, found, form, view, end)


def _warn(found: Recommended) -> None:
    from mmindex.core.progress import get_logger

    log, used = get_logger("recommend"), found.used
    if used.unknown:
        log.warning("images of the history are not in the index", images=used.unknown)
    if used.future:
        log.warning("times in the future count as now", entries=used.future)


def _print(index: Index, found: Recommended, form: Form, view: View, end: str) -> None:
    from dataclasses import asdict

    from mmindex_cli.answers import answer_lines, answer_record, answer_rows, row_names
    from mmindex_cli.output import emit

    emit(
        [found],
        form,
        text=lambda some: answer_lines(some, view),
        json=lambda one: {
            **answer_record(one, view),
            "history": asdict(found.used),
            "model": index.model,
            "fingerprint": index.fingerprint,
        },
        tsv=(row_names(view), lambda one: answer_rows(one, view)),
        paths=lambda one: (hit.uri for hit in one),
        end=end,
    )
