"""Check the arguments of a search before anything is encoded, and return its hits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from numpy.typing import ArrayLike

from mmindex.api.hits import Details, Hits, Shown, Side
from mmindex.core.arguments import expect, expect_several
from mmindex.core.errors import DataError, UsageError
from mmindex.core.modality import Modality
from mmindex.search.answer import Answer
from mmindex.search.columns import Order, check_columns, read_order, sorted_hits
from mmindex.search.given import (
    ImageLike,
    as_side,
    as_weights,
    as_words,
    either_part,
    image_part,
    several,
    text_part,
    unit_vector,
)
from mmindex.search.hits import Limit
from mmindex.search.parts import Part, Question
from mmindex.search.query import Session
from mmindex.search.rank import By
from mmindex.store.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Form:
    """The checked arguments that all searches share.

    Attributes:
        session: searches with the condition.
        to: the side to search; None: the default of the query.
        limit: the number of hits and the lowest score.
        order: the column to sort the hits by; None: similarity.
        shown: the settings for the display of the hits.
    """

    session: Session
    to: Modality | None
    limit: Limit
    order: Order | None
    shown: Shown

    def hits(self, answer: Answer) -> Hits:
        """Return the hits of an answer."""
        if self.order is not None:
            hits = sorted_hits(self.session.snapshot, answer.hits, self.order)
            answer = replace(answer, hits=hits)
        return Hits(answer, self.details(answer))

    def many(self, texts: Iterable[str | bytes], by: By, *, strict: bool) -> Iterator[Hits]:
        """Yield the hits of each text; if ``strict``, raise the error of an invalid one."""
        for answer in self.session.lines(texts, self.to, self.limit, by):
            if strict and answer.error is not None:
                raise DataError(f"{answer.query[:80]!r}: {answer.error}")
            yield self.hits(answer)

    def details(self, answer: Answer) -> Details:
        """Return the metadata of the hits of an answer, read on first use."""
        image_ids = [hit.image_id for hit in answer.hits]
        return Details(self.session.snapshot, image_ids, self.shown)


def form_of(
    session: Session,
    limit: Limit,
    *,
    where: str | None,
    sort: str | None = None,
    columns: Sequence[str] | None,
    to: Side | None = "image",
    with_location: bool,
) -> Form:
    """Check the arguments that all searches share; ``session`` has the condition ``where``."""
    side = None if to is None else as_side(to)
    names = None
    if columns is not None:
        expect_several(columns, "columns")
        names = tuple(expect(name, str, "columns", "a str") for name in columns)
        check_columns(session.snapshot, names, with_location=with_location)
    order = None
    if sort is not None:
        order = read_order(session.snapshot, expect(sort, str, "sort", "a str"))
    shown = Shown(names, with_location, where, limit.min_score, limit.good)
    return Form(session, side, limit, order, shown)


def question_of(
    snapshot: Snapshot,
    text: str | None,
    *,
    image: ImageLike | Sequence[ImageLike] | None,
    vector: ArrayLike | None,
    plus: ImageLike | Sequence[ImageLike] | None,
    minus: ImageLike | Sequence[ImageLike] | None,
    weights: Sequence[float] | None,
    others: bool,
    hybrid: bool,
) -> Question:
    """Check the parts of a query."""
    words = as_words(text, hybrid)
    wanted = [] if text is None else [text_part(text)]
    wanted += [image_part(one, "image") for one in several(image)]
    if vector is not None:
        unit = unit_vector(vector, snapshot.encoder.dim)
        wanted.append(Part(Modality.IMAGE, "a vector", unit))
    wanted += [either_part(one, "plus", snapshot) for one in several(plus)]
    unwanted = [either_part(one, "minus", snapshot) for one in several(minus)]
    if not wanted:
        raise UsageError("the query is empty", "search with a text, `image`, `vector` or `plus`")
    return Question(
        tuple(wanted),
        tuple(unwanted),
        as_weights(weights),
        expect(others, bool, "others", "a bool"),
        words,
    )
