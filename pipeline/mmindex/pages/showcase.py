"""The best and the worst queries of an evaluation, with their texts and images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmindex.evaluate.contrast import Moved
from mmindex.evaluate.corpus import Corpus, Items
from mmindex.evaluate.directions import Direction
from mmindex.pages.page import Thumb, thumb
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot

Int64 = NDArray[np.int64]

# The most characters of a text that a card shows.
_MAX_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Side:
    """An image (``thumb``) or a caption (``text``); ``score`` is its cosine with the query."""

    id: str
    score: float
    text: str | None = None
    thumb: Thumb | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A query, the rank of the correct answer, that answer, and the first wrong one (if any)."""

    query: Side
    rank: int
    right: Side
    wrong: Side | None


@dataclass(frozen=True, slots=True)
class Showcase:
    """The best and worst queries of one direction."""

    best: tuple[Example, ...]
    worst: tuple[Example, ...]


def best_queries(direction: Direction, count: int) -> Int64:
    """Return queries with the correct answer first, by the lead over the first wrong answer."""
    lead = direction.right_score - direction.wrong_score
    order = np.lexsort((direction.rows, -lead))
    return _one_an_image(direction, order[direction.ranks[order] == 1], count)


def worst_queries(direction: Direction, count: int) -> Int64:
    """Return queries without the correct answer first, the farthest down the list first."""
    lead = direction.right_score - direction.wrong_score
    order = np.lexsort((direction.rows, lead, -direction.ranks))
    return _one_an_image(direction, order[direction.ranks[order] > 1], count)


def _one_an_image(direction: Direction, order: Int64, count: int) -> Int64:
    """Return the first ``count`` queries with at most one per image."""
    _, first = np.unique(direction.images[order], return_index=True)
    return order[np.sort(first)[:count]]


def showcase(
    snapshot: Snapshot, corpus: Corpus, direction: Direction, *, to_image: bool, count: int
) -> Showcase:
    """Return the texts and images of the ``count`` best and worst queries.

    Raises:
        DataError: the store's tables are damaged.
    """
    best, worst = best_queries(direction, count), worst_queries(direction, count)
    reader = _Reader(snapshot, corpus, direction, to_image=to_image)
    made = reader.examples(np.concatenate((best, worst)))
    return Showcase(made[: len(best)], made[len(best) :])


@dataclass(frozen=True, slots=True)
class MovedExample:
    """A query whose rank changed: its example with this model, and its rank with the other."""

    example: Example
    there: int


def moved_examples(
    snapshot: Snapshot,
    corpus: Corpus,
    direction: Direction,
    moved: Sequence[Moved],
    *,
    to_image: bool,
) -> tuple[MovedExample, ...]:
    """Return the texts and images of queries whose ranks changed.

    Raises:
        DataError: the store's tables are damaged.
    """
    reader = _Reader(snapshot, corpus, direction, to_image=to_image)
    made = reader.examples(np.array([one.place for one in moved], dtype=np.int64))
    return tuple(MovedExample(*pair) for pair in zip(made, (m.there for m in moved), strict=True))


class _Reader:
    """Reads the shown rows once, from the row groups that contain them."""

    def __init__(
        self, snapshot: Snapshot, corpus: Corpus, direction: Direction, *, to_image: bool
    ) -> None:
        self._snapshot = snapshot
        self._gallery: Items | None = corpus.images if to_image else corpus.captions
        self._direction = direction
        self._to_image = to_image
        self._images: dict[int, tuple[str, str]] = {}
        self._captions: dict[int, tuple[str, str]] = {}

    def examples(self, shown: Int64) -> tuple[Example, ...]:
        """Return the queries at these positions."""
        direction = self._direction
        wrong = [self._wrong_row(int(at)) for at in shown]
        answers = {*direction.right_row[shown].tolist(), *(row for row in wrong if row >= 0)}
        asked = set(direction.rows[shown].tolist())
        images, captions = (answers, asked) if self._to_image else (asked, answers)
        self._images = self._rows("images", ["image_id", "uri"], images)
        self._captions = self._rows("captions", ["caption_id", "text"], captions)
        return tuple(self._example(int(at), row) for at, row in zip(shown, wrong, strict=True))

    def _wrong_row(self, at: int) -> int:
        """Return the first row with the content of the wrong answer; -1 if there is none."""
        found = int(self._direction.wrong_id[at])
        if found < 0 or self._gallery is None:
            return -1
        return int(self._gallery.rows[self._gallery.starts[found]])

    def _example(self, at: int, wrong: int) -> Example:
        direction = self._direction
        asked, answer = self._caption, self._image
        if not self._to_image:
            asked, answer = answer, asked
        return Example(
            query=asked(int(direction.rows[at]), 1.0),
            rank=int(direction.ranks[at]),
            right=answer(int(direction.right_row[at]), float(direction.right_score[at])),
            wrong=None if wrong < 0 else answer(wrong, float(direction.wrong_score[at])),
        )

    def _image(self, row: int, score: float) -> Side:
        image_id, uri = self._images[row]
        return Side(image_id, score, thumb=thumb(uri))

    def _caption(self, row: int, score: float) -> Side:
        caption_id, text = self._captions[row]
        cut = text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "…"
        return Side(caption_id, score, text=cut)

    def _rows(
        self, name: str, columns: list[str], rows: Iterable[int]
    ) -> dict[int, tuple[str, str]]:
        wanted = sorted(rows)
        table = self._snapshot.take(name, columns, np.array(wanted, dtype=np.int64))
        texts = (contents(table[column]) for column in columns)
        return dict(zip(wanted, zip(*texts, strict=True), strict=True))
