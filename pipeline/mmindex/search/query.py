"""Queries: texts and pictures in, hits out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import NoVectorError, UsageError
from mmindex.core.memo import Memo
from mmindex.core.modality import Modality
from mmindex.core.records import Hit
from mmindex.search.fusion import fuse, part_weights
from mmindex.search.hits import Limit, Ranked, hits
from mmindex.search.parts import Question
from mmindex.search.searcher import Searcher
from mmindex.search.vectorize import Vectorizer, open_vectorizer
from mmindex.store.snapshot import Snapshot

if TYPE_CHECKING:
    from mmindex.models.encoder import Encoder
    from mmindex.search.filters import Rows

# Lines of a query file answered together: enough for full speed of model, index and tables, few
# enough that answers come soon and that 256 x k hits fit in memory.
BATCH = 256
# Bytes of a line of a query file: ten times what any model reads of a text, and 256 of them are
# 16 MiB.
MAX_LINE = 64 << 10
_SHOWN = 200

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answer:
    """One query with its hits.

    Attributes:
        query: the text, or what named the picture.
        to: what was searched for.
        version: the version that answered.
        hits: best first.
        picture: where the query's picture is; None for a text.
        error: why there is no answer; ``hits`` is empty then.
    """

    query: str
    to: Modality
    version: int
    hits: tuple[Hit, ...]
    picture: str | None = None
    error: str | None = None


@dataclass(slots=True)
class Session:
    """Answers any number of queries from one published version.

    Args:
        snapshot: the version.
        load: loads the model that made the index; called once, and only when it is needed.
        where: a condition on images, see :mod:`mmindex.search.filters`; hits are images that
            fulfil it, or captions of such images. None: all.

    Several threads may ask at once. Use it as a context manager: leaving lets go of the model.
    """

    snapshot: Snapshot
    load: Callable[[], Encoder]
    where: str | None = None
    vectorizer: Vectorizer = field(init=False)
    _searchers: dict[Modality, Searcher] = field(default_factory=dict)
    _rows: Rows | None = None
    _allowed: dict[Modality, Int64] = field(default_factory=dict)
    _lock: RLock = field(default_factory=RLock)  # of the indexes, which filtered sessions share
    _filter_lock: RLock = field(default_factory=RLock)

    def __post_init__(self) -> None:
        self.vectorizer = Vectorizer(self.snapshot, self.load)
        if self.where is not None:  # now: its mistakes show before a model is loaded
            self._rows = _select(self.snapshot, self.where)

    def __enter__(self) -> Session:
        return self

    def filtered(self, where: str | None, timeout_s: float | None = None) -> Session:
        """The same version, model and indexes, asked under another condition.

        Raises:
            UsageError: it is no condition, or takes longer than ``timeout_s``.
        """
        other = Session(self.snapshot, self.load)
        other.vectorizer, other._searchers = self.vectorizer, self._searchers
        other._lock = self._lock
        if where is not None:
            other.where, other._rows = where, _select(self.snapshot, where, timeout_s)
        return other

    def prepare(self, to: Modality) -> None:
        """Read what answers need, so that the first one comes as fast as the others.

        Raises:
            NoInputError: there is nothing of the wanted kind to search.
            DataError: the index is damaged.
        """
        self._searcher(to)
        self.snapshot.keys(to)
        self._filtered(to)

    @property
    def rows(self) -> Rows | None:
        """bool (images,): the images that fulfil the condition; None: there is none."""
        return self._rows

    def __exit__(self, *_error: object) -> None:
        self.vectorizer.close()

    def text(self, text: str, to: Modality | None, limit: Limit) -> Answer:
        """Answer a text; ``to`` is images unless said otherwise.

        Raises:
            UsageError: the text is empty.
            NoInputError: there is nothing of the wanted kind to search.
            ModelMismatchError: the model is no longer the one that made the index.
        """
        if not text.strip():
            raise UsageError("the query is empty", "pass a text, for example: a red bus")
        [answer] = self.texts([text], to or Modality.IMAGE, limit)
        if answer.error is not None:
            raise NoVectorError(answer.error)
        return answer

    def lines(
        self, lines: Iterable[str | bytes], to: Modality | None, limit: Limit
    ) -> Iterator[Answer]:
        """Answer many texts, or a UTF-8 file's lines: one answer each, in order.

        A text that is empty, and a line that is empty, not UTF-8 or longer than ``MAX_LINE``, gets
        an answer that says so.
        """
        to = to or Modality.IMAGE
        self.snapshot.index(to)
        pending = iter(lines)
        while batch := list(islice(pending, BATCH)):
            questions = [_question(line) for line in batch]
            good = [text for text, error in questions if error is None]
            answered = iter(self.texts(good, to, limit))
            for text, error in questions:
                yield next(answered) if error is None else self._refused(text, to, error)

    def image(self, where: str, to: Modality | None, limit: Limit) -> Answer:
        """Answer a picture: a file, the uri or the id of an image of the corpus.

        ``to`` is captions where the corpus has any, else images.

        Raises:
            NoInputError: there is no such file, uri or id.
            DataError: the picture cannot be decoded.
            ModelMismatchError: as :meth:`text`.
        """
        manifest = self.snapshot.manifest
        to = to or self._side_of_picture()
        self.snapshot.index(to)
        asked = self.vectorizer.picture(where)
        [found] = self._search(asked.vector[None, :], to, limit)
        return Answer(where, to, manifest.version, found, picture=asked.uri)

    def _side_of_picture(self) -> Modality:
        """What a picture alone finds unless said otherwise: captions, if there are any."""
        indexes = self.snapshot.manifest.indexes
        return Modality.TEXT if Modality.TEXT in indexes else Modality.IMAGE

    def ask(self, question: Question, to: Modality | None, limit: Limit) -> Answer:
        """Answer a question of any number of parts.

        ``to`` is what :meth:`text` or :meth:`image` takes for a single part, else images.

        Raises:
            UsageError: weights do not fit, parts cancel out, or ``others`` where captions are
                searched.
            NoInputError, DataError, ModelMismatchError: as :meth:`text` and :meth:`image`.
        """
        alone = question.plain
        if alone is not None and alone.given is None:
            part_weights(1, 0, question.weights)
            single = self.image if alone.kind is Modality.IMAGE else self.text
            return single(alone.value, to, limit)
        to = to or (self._side_of_picture() if question.is_picture else Modality.IMAGE)
        if question.others and to is not Modality.IMAGE:
            raise UsageError(
                "`others` leaves out images, but this query searches captions", "remove `others`"
            )
        self.snapshot.index(to)
        weights = part_weights(len(question.wanted), len(question.unwanted), question.weights)
        vectors, asked = self.vectorizer.parts((*question.wanted, *question.unwanted))
        wanted = asked[: len(question.wanted)]
        left_out = {one.key for one in wanted if one is not None and one.key is not None}
        [found] = self._search(
            fuse(vectors, weights)[None, :], to, limit, left_out if question.others else set()
        )
        pictures = [one.uri for one in wanted if one is not None]
        version = self.snapshot.manifest.version
        return Answer(question.title, to, version, found, pictures[0] if pictures else None)

    def texts(self, texts: Sequence[str], to: Modality, limit: Limit) -> list[Answer]:
        """Answer many texts at once; one that the model cannot encode gets an answer that says so.

        Raises:
            NoInputError, ModelMismatchError: as :meth:`text`.
        """
        from mmindex.models.encoder import good_rows

        self.snapshot.index(to)
        if not texts:
            return []
        vectors = self.vectorizer.encode_texts(texts)
        good = good_rows(vectors)
        found = iter(self._search(vectors[good], to, limit))
        version = self.snapshot.manifest.version
        return [
            Answer(text, to, version, next(found))
            if fine
            else self._refused(text, to, "the model returns no usable vector for this text")
            for text, fine in zip(texts, good.tolist(), strict=True)
        ]

    def _refused(self, text: str, to: Modality, why: str) -> Answer:
        return Answer(text, to, self.snapshot.manifest.version, (), error=why)

    def _search(
        self, vectors: Float32, to: Modality, limit: Limit, left_out: Set[str] = frozenset()
    ) -> list[tuple[Hit, ...]]:
        """Hits for float32 (q, dim) unit vectors; none of the keys ``left_out``."""
        searcher = self._searcher(to)
        rows, ids = self._filtered(to)
        if limit.distinct:
            from mmindex.search.distinct import Scope, distinct_hits

            scope = Scope(self.snapshot, searcher, to, rows, ids)
            return [distinct_hits(scope, vector, limit, left_out) for vector in vectors]
        depth = min(limit.k + len(left_out), self.snapshot.index(to).n)
        scores, found = searcher.search(np.ascontiguousarray(vectors), depth, ids)
        ranked = []
        for row_scores, row_ids in zip(scores, found, strict=True):
            there = row_ids >= 0
            keys = searcher.keys(row_ids[there])
            kept = [
                (key, score)
                for key, score in zip(keys, row_scores[there].tolist(), strict=True)
                if key not in left_out
            ]
            ranked.append(Ranked([key for key, _ in kept], [score for _, score in kept]))
        return hits(self.snapshot, to, ranked, limit, rows)

    def _filtered(self, to: Modality) -> tuple[Rows | None, Int64 | None]:
        """The rows of the images table, and the ids of one side, that the filter lets through."""
        if self._rows is None:
            return None, None
        with self._filter_lock:
            if to not in self._allowed:
                from mmindex.search.filters import ids_of

                self._allowed[to] = ids_of(self.snapshot, to, self._rows)
            return self._rows, self._allowed[to]

    def _searcher(self, side: Modality) -> Searcher:
        with self._lock:
            if side not in self._searchers:
                self._searchers[side] = Searcher(self.snapshot, side)
            return self._searchers[side]


def _select(snapshot: Snapshot, where: str, timeout_s: float | None = None) -> Rows:
    from mmindex.search.filters import TIMEOUT_S, select_images  # DuckDB: when needed

    return select_images(snapshot, where, timeout_s or TIMEOUT_S)


class Sessions:
    """One version under any condition; what was worked out for the last conditions is kept.

    Args:
        session: the version, without a condition.
        keep: how many conditions.
        timeout_s: the longest that one may take; None: as the command line has it.

    Several threads may ask at once.
    """

    def __init__(self, session: Session, keep: int, timeout_s: float | None = None) -> None:
        self.session = session
        self._timeout_s = timeout_s
        self._filtered: Memo[Session] = Memo(keep)

    def under(self, where: str | None) -> Session:
        """The session that answers under a condition.

        Raises:
            UsageError: it is no condition, or takes too long.
        """
        if where is None:
            return self.session
        return self._filtered.get(where, lambda: self.session.filtered(where, self._timeout_s))

    def close(self) -> None:
        """Let go of the model and of the conditions."""
        self._filtered.clear()
        self.session.vectorizer.close()


def open_session(root: Path, device: str = "auto", where: str | None = None) -> Session:
    """Open the store at ``root`` for queries.

    Args:
        root: the store's folder.
        device: where the model runs, should it be needed: ``auto``, ``cpu``, ``cuda`` ...
        where: a condition on images, see :class:`Session`.

    Raises:
        NoInputError: there is no store, or nothing in it that can be searched.
    """
    vectorizer = open_vectorizer(root, device)
    return Session(vectorizer.snapshot, vectorizer.load, where)


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one longer than ``MAX_LINE`` bytes only its start, one byte more."""
    while line := file.readline(MAX_LINE + 1):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE)


def _question(line: str | bytes) -> tuple[str, str | None]:
    """A line's text, and why it cannot be asked, if so."""
    if isinstance(line, str):
        return line, None if line.strip() else "the query is empty"
    content = line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
    if len(content) > MAX_LINE:
        start = content[:_SHOWN].decode("utf-8", "replace")
        return f"{start}…", f"longer than {MAX_LINE:,} bytes"
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return content.decode("utf-8", "backslashreplace"), f"not valid UTF-8: {error.reason}"
    return text, None if text.strip() else "the query is empty"
