"""Answer queries: texts and images to hits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import NoInputError, NoVectorError, UsageError
from mmindex.core.memo import Memo
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.core.records import Hit
from mmindex.keywords.index import KeywordIndex, open_keywords, query_words
from mmindex.search.calibration import CONTEXT, Calibration, read_calibrations
from mmindex.search.fusion import fuse, part_weights
from mmindex.search.hits import Limit, Ranked, hits
from mmindex.search.parts import Question
from mmindex.search.rank import By, Find, Words, by_both, by_vector, by_words
from mmindex.search.searcher import Searcher
from mmindex.search.vectorize import LoadTexts, Vectorizer, no_text_encoder, open_vectorizer
from mmindex.store.snapshot import Snapshot

if TYPE_CHECKING:
    from mmindex.models.encoder import Encoder
    from mmindex.search.distinct import Scope
    from mmindex.search.filters import Rows

# Lines of a query file per batch: enough for full speed of model, index and tables, but few enough
# for fast answers, and for 256 x k hits in memory.
BATCH = 256
# Bytes of a line of a query file: ten times what any model uses of a text; 256 lines are 16 MiB.
MAX_LINE = 64 << 10
_SHOWN = 200

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answer:
    """One query with its hits.

    Attributes:
        query: the text, or the name of the image.
        to: the side that was searched.
        version: the version of the store.
        hits: best first.
        image: the location of the query image; None for a text.
        error: why the query failed; ``hits`` is then empty.
        cosine: whether scores are cosine similarities; otherwise they are BM25.
    """

    query: str
    to: Modality
    version: int
    hits: tuple[Hit, ...]
    image: str | None = None
    error: str | None = None
    cosine: bool = True


@dataclass(slots=True)
class Session:
    """Searches in one published version.

    Args:
        snapshot: the version.
        load: loads the model of the index; called once, when it is first needed.
        where: a condition on images, see :mod:`mmindex.search.filters`; hits are images that match
            it, or captions of such images. None: all.
        load_texts: as for :class:`mmindex.search.vectorize.Vectorizer`.

    Several threads can search at once. As a context manager, it releases the model at the end.
    """

    snapshot: Snapshot
    load: Callable[[], Encoder]
    where: str | None = None
    load_texts: LoadTexts = no_text_encoder
    vectorizer: Vectorizer = field(init=False)
    _searchers: dict[Modality, Searcher] = field(default_factory=dict)
    _opened: list[KeywordIndex] = field(default_factory=list)  # at most one
    _rows: Rows | None = None
    _allowed: dict[Modality, Int64] = field(default_factory=dict)
    _calibrations: tuple[Calibration, ...] | None = None
    _lock: RLock = field(default_factory=RLock)  # for the indexes, which filtered sessions share
    _filter_lock: RLock = field(default_factory=RLock)

    def __post_init__(self) -> None:
        self.vectorizer = Vectorizer(self.snapshot, self.load, self.load_texts)
        if self.where is not None:  # now, so that errors are reported before a model is loaded
            self._rows = _select(self.snapshot, self.where)

    def __enter__(self) -> Session:
        return self

    def filtered(self, where: str | None, timeout_s: float | None = None) -> Session:
        """Return a session with the same version, model and indexes, and another condition.

        Raises:
            UsageError: the condition is invalid, or takes longer than ``timeout_s``.
        """
        other = Session(self.snapshot, self.load, load_texts=self.load_texts)
        other.vectorizer, other._searchers = self.vectorizer, self._searchers
        other._opened, other._calibrations = self._opened, self._calibrations
        other._lock = self._lock
        if where is not None:
            other.where, other._rows = where, _select(self.snapshot, where, timeout_s)
        return other

    def prepare(self, to: Modality) -> None:
        """Load what searches need, so that the first one is as fast as the others.

        Raises:
            NoInputError: this side has nothing to search.
            DataError: the index is damaged.
        """
        self._searcher(to)
        self.snapshot.keys(to)
        self._filtered(to)

    @property
    def rows(self) -> Rows | None:
        """bool (images,): the images that match the condition; None without a condition."""
        return self._rows

    def __exit__(self, *_error: object) -> None:
        self.vectorizer.close()

    def text(self, text: str, to: Modality | None, limit: Limit) -> Answer:
        """Search with a text; by default, for images.

        Raises:
            UsageError: the text is empty.
            NoInputError: this side has nothing to search.
            ModelMismatchError: the model is no longer the model of the index.
        """
        if not text.strip():
            raise UsageError("the query is empty", "pass a text, for example: a red bus")
        [answer] = self.texts([text], to or Modality.IMAGE, limit)
        if answer.error is not None:
            raise NoVectorError(answer.error)
        return answer

    def lines(
        self,
        lines: Iterable[str | bytes],
        to: Modality | None,
        limit: Limit,
        by: By = "meaning",
    ) -> Iterator[Answer]:
        """Search with many texts, or lines of a UTF-8 file: yield one answer for each, in order.

        The answer for an empty text, and for a line that is empty, not UTF-8 or longer than
        ``MAX_LINE``, contains an error; so does that for a text without words, if only words count.

        Raises:
            UsageError: a search by words is for captions, or has a limit that needs vectors.
            NoInputError: there is no index, or no keyword index.
        """
        to = to or Modality.IMAGE
        self.snapshot.index(to)
        if by != "meaning":
            _check_words(by, to, limit)
            by = "meaning" if by == "both" and not self._words_help() else by
        pending = iter(lines)
        while batch := list(islice(pending, BATCH)):
            questions = [_question(line) for line in batch]
            good = [text for text, error in questions if error is None]
            answered = iter(self.texts(good, to, limit, by))
            for text, error in questions:
                yield next(answered) if error is None else self._refused(text, to, error)

    def image(self, where: str, to: Modality | None, limit: Limit) -> Answer:
        """Search with an image: a file, or the uri or id of an image in the corpus.

        By default, it searches captions if the corpus has any, otherwise images.

        Raises:
            NoInputError: there is no such file, uri or id.
            DataError: the image cannot be decoded.
            ModelMismatchError: as :meth:`text`.
        """
        manifest = self.snapshot.manifest
        to = to or self._side_of_image()
        self.snapshot.index(to)
        judge = self._judge(Modality.IMAGE, to, limit)
        asked = self.vectorizer.named_image(where)
        [found] = self._search(asked.vector[None, :], to, limit, judge)
        return Answer(where, to, manifest.version, found, image=asked.uri)

    def _side_of_image(self) -> Modality:
        """Return the default side for a single image: captions, if there are any."""
        indexes = self.snapshot.manifest.indexes
        return Modality.TEXT if Modality.TEXT in indexes else Modality.IMAGE

    def ask(self, question: Question, to: Modality | None, limit: Limit) -> Answer:
        """Search with a query of any number of parts.

        The default side is that of :meth:`text` or :meth:`image` for a single part, otherwise
        images.

        Raises:
            UsageError: the number of weights is wrong, parts cancel each other out, ``others`` is
                used with captions, or a hybrid search is for captions.
            NoInputError, DataError, ModelMismatchError: as :meth:`text` and :meth:`image`.
        """
        words: list[str] = []
        if question.words is not None:
            to = to or Modality.IMAGE
            _check_words("both", to, limit)
            words = _query_words(question.words) if self._words_help() else []
            question = question if words else replace(question, words=None)
        alone = question.plain
        if alone is not None and alone.given is None:
            part_weights(1, 0, question.weights)
            single = self.image if alone.kind is Modality.IMAGE else self.text
            return single(alone.value, to, limit)
        to = to or (self._side_of_image() if question.is_image else Modality.IMAGE)
        if question.others and to is not Modality.IMAGE:
            raise UsageError(
                "`others` leaves out images, but this query searches captions", "remove `others`"
            )
        self.snapshot.index(to)
        # An opened image is a query like any other; a vector, several parts, or words are not.
        judge = self._judge(Modality.IMAGE if question.is_image else None, to, limit)
        weights = part_weights(len(question.wanted), len(question.unwanted), question.weights)
        vectors, asked = self.vectorizer.parts((*question.wanted, *question.unwanted))
        wanted = asked[: len(question.wanted)]
        given = {one.key for one in wanted if one is not None and one.key is not None}
        left_out = given if question.others else set()
        fused = fuse(vectors, weights)
        if words:
            found = self._by_both(fused, words, limit, left_out)
        else:
            [found] = self._search(fused[None, :], to, limit, judge, left_out)
        images = [one.uri for one in wanted if one is not None]
        version = self.snapshot.manifest.version
        return Answer(question.title, to, version, found, images[0] if images else None)

    def keywords(self, text: str, to: Modality | None, limit: Limit) -> Answer:
        """Find images by the words of a text alone, without the model; scores are BM25.

        Raises:
            UsageError: the text has no words, the search is for captions, or a lowest score or
                only good hits are wanted.
            NoInputError: the version has no keyword index.
            DataError: the keyword index is damaged.
        """
        _check_words("words", to or Modality.IMAGE, limit)
        answer = self._by_words(text, limit)
        if answer.error is not None:
            raise UsageError(
                f"`keywords={text[:_SHOWN]!r}`: {answer.error}", "pass letters or numbers"
            )
        return answer

    def texts(
        self, texts: Sequence[str], to: Modality, limit: Limit, by: By = "meaning"
    ) -> list[Answer]:
        """Search with many texts at once; texts that cannot be used get an answer with an error.

        Raises:
            NoInputError, ModelMismatchError: as :meth:`text`.
        """
        from mmindex.models.encoder import good_rows

        self.snapshot.index(to)
        if by == "words":
            return [self._by_words(text, limit) for text in texts]
        judge = self._judge(Modality.TEXT, to, limit)
        if not texts:
            return []
        vectors = self.vectorizer.encode_texts(texts)
        good = good_rows(vectors)
        words = [_query_words(text) if by == "both" else [] for text in texts]
        plain = good & np.array([not some for some in words])
        near = iter(self._search(vectors[plain], to, limit, judge))
        found = (
            self._by_both(vector, some, limit) if some else next(near)
            for vector, some, fine in zip(vectors, words, good.tolist(), strict=True)
            if fine
        )
        version = self.snapshot.manifest.version
        return [
            Answer(text, to, version, next(found))
            if fine
            else self._refused(text, to, "the model returns no usable vector for this text")
            for text, fine in zip(texts, good.tolist(), strict=True)
        ]

    def _refused(self, text: str, to: Modality, why: str) -> Answer:
        return Answer(text, to, self.snapshot.manifest.version, (), error=why)

    def _judge(self, asked: Modality | None, to: Modality, limit: Limit) -> Calibration | None:
        """Return the calibration for queries from one side; None if there is none.

        Raises:
            NoInputError: there is none, and only good hits are wanted.
        """
        with self._lock:
            if self._calibrations is None:
                self._calibrations = read_calibrations(self.snapshot)
        for one in self._calibrations:
            if (one.asked, one.to) == (asked, to):
                return one
        if limit.good:
            raise NoInputError(
                f"version {self.snapshot.manifest.version} has no calibration for this kind of "
                "query, so weak hits are not known",
                "use `good` to find images by one text or captions by one image, in a store that "
                "was evaluated with at least 50 captioned images",
            )
        return None

    def _search(
        self,
        vectors: Float32,
        to: Modality,
        limit: Limit,
        judge: Calibration | None,
        left_out: Set[str] = frozenset(),
    ) -> list[tuple[Hit, ...]]:
        """Return hits for float32 (q, dim) unit vectors, without the keys ``left_out``."""
        searcher = self._searcher(to)
        rows, ids = self._filtered(to)
        if limit.distinct:
            return [
                self._ranked(by_vector(searcher, one, ids, limit), to, limit, judge, left_out)
                for one in vectors
            ]
        depth = min(limit.k + len(left_out), self.snapshot.index(to).n)
        context = 0 if judge is None else CONTEXT
        scores, found = searcher.search(np.ascontiguousarray(vectors), depth, ids, context=context)
        ranked = [
            self._named(to, row_ids[row_ids >= 0], row_scores[row_ids >= 0], left_out)
            for row_scores, row_ids in zip(scores[:, :depth], found[:, :depth], strict=True)
        ]
        every = hits(self.snapshot, to, ranked, limit, rows)
        best = scores[:, :CONTEXT].astype(np.float64)
        return [_judged(judge, one, near, limit) for one, near in zip(every, best, strict=True)]

    def _ranked(
        self,
        find: Find,
        to: Modality,
        limit: Limit,
        judge: Calibration | None,
        left_out: Set[str] = frozenset(),
    ) -> tuple[Hit, ...]:
        """Return the hits of one ranking, without the keys ``left_out``."""
        if limit.distinct:
            from mmindex.search.distinct import distinct_hits

            answer, context = distinct_hits(self.scope(to), find, limit, left_out)
        else:
            found = find(min(limit.k + len(left_out), self.snapshot.index(to).n))
            named = self._named(to, found.ids, found.scores, left_out)
            rows, _ = self._filtered(to)
            [answer] = hits(self.snapshot, to, [replace(named, cosine=found.cosine)], limit, rows)
            context = found.context
        return _judged(judge, answer, context, limit)

    def scope(self, to: Modality) -> Scope:
        """Return the vectors of one side that meet the condition.

        Raises:
            NoInputError: this side has nothing to search.
            DataError: the index is damaged.
        """
        from mmindex.search.distinct import Scope

        return Scope(self.snapshot, self._searcher(to), to, *self._filtered(to))

    def _named(self, to: Modality, ids: Int64, scores: Float32, left_out: Set[str]) -> Ranked:
        kept = [
            (key, score)
            for key, score in zip(self.snapshot.keys_at(to, ids), scores.tolist(), strict=True)
            if key not in left_out
        ]
        return Ranked([key for key, _ in kept], [score for _, score in kept])

    def _by_words(self, text: str, limit: Limit) -> Answer:
        words = query_words(text)
        if not words:
            return self._refused(text, Modality.IMAGE, "no words to search for")
        _, ids = self._filtered(Modality.IMAGE)
        find = by_words(self._keywords(), words, ids)
        found = self._ranked(find, Modality.IMAGE, limit, judge=None)
        version = self.snapshot.manifest.version
        return Answer(text, Modality.IMAGE, version, found, cosine=False)

    def _by_both(
        self, vector: Float32, words: list[str], limit: Limit, left_out: Set[str] = frozenset()
    ) -> tuple[Hit, ...]:
        """Return the images for a vector and for words."""
        _, ids = self._filtered(Modality.IMAGE)
        near = by_vector(self._searcher(Modality.IMAGE), vector, ids, limit)
        asked = Words(self._keywords(), words, ids, limit.min_score)
        find = by_both(near, vector, self.snapshot.vectors(Modality.IMAGE), asked)
        return self._ranked(find, Modality.IMAGE, limit, None, left_out)

    def _words_help(self) -> bool:
        """Return whether words make the answers of this store better, see :mod:`.fit_hybrid`.

        Raises:
            NoInputError: the version has no keyword index.
        """
        if self._keywords().weights.none:
            get_logger("search").warning(
                "words make the answers of this store worse (see docs/keywords.md): using only the "
                "vector"
            )
            return False
        return True

    def _keywords(self) -> KeywordIndex:
        with self._lock:
            if not self._opened:
                self._opened.append(open_keywords(self.snapshot))
            return self._opened[0]

    def _filtered(self, to: Modality) -> tuple[Rows | None, Int64 | None]:
        """Return the images rows and the ids of one side that pass the filter."""
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


def _judged(
    judge: Calibration | None, found: tuple[Hit, ...], context: Float64 | None, limit: Limit
) -> tuple[Hit, ...]:
    """Return hits with probabilities; only good ones if they are wanted."""
    if judge is None or context is None:
        return found
    judged = judge.judge(found, context)
    return tuple(hit for hit in judged if not hit.weak) if limit.good else judged


def _check_words(by: By, to: Modality, limit: Limit) -> None:
    """Check the side and the limits of a search by words."""
    if limit.good:
        raise UsageError(
            "`good` works only with vectors, but this query also uses words",
            "remove `good`, or search without `keywords` and `hybrid`",
        )
    if to is not Modality.IMAGE:
        raise UsageError(
            "words find images, but this query searches captions",
            "remove `to=text`, or search without `keywords` and `hybrid`",
        )
    if by == "words" and limit.min_score is not None:
        raise UsageError(
            "`min_score` is a cosine similarity, which a search by keywords does not have",
            "remove `min_score`, or use a hybrid search",
        )


def _query_words(text: str) -> list[str]:
    words = query_words(text)
    if not words:
        get_logger("search").warning("the query has no words: using only its vector")
    return words


def _select(snapshot: Snapshot, where: str, timeout_s: float | None = None) -> Rows:
    from mmindex.search.filters import TIMEOUT_S, select_images  # only if needed: DuckDB

    return select_images(snapshot, where, timeout_s or TIMEOUT_S)


class Sessions:
    """Sessions of one version with different conditions; the latest ones are cached.

    Args:
        session: the version, without a condition.
        keep: the number of conditions to cache.
        timeout_s: the time limit for a condition; None: as on the command line.

    Several threads can use it at once.
    """

    def __init__(self, session: Session, keep: int, timeout_s: float | None = None) -> None:
        self.session = session
        self._timeout_s = timeout_s
        self._filtered: Memo[Session] = Memo(keep)

    def under(self, where: str | None) -> Session:
        """Return the session with a condition.

        Raises:
            UsageError: the condition is invalid, or takes too long.
        """
        if where is None:
            return self.session
        return self._filtered.get(where, lambda: self.session.filtered(where, self._timeout_s))

    def close(self) -> None:
        """Release the model and the conditions."""
        self._filtered.clear()
        self.session.vectorizer.close()


def open_session(root: Path, device: str = "auto", where: str | None = None) -> Session:
    """Open the store at ``root`` for queries.

    Args:
        root: the folder of the store.
        device: the device for the model, if it is needed: ``auto``, ``cpu``, ``cuda`` ...
        where: a condition on images, see :class:`Session`.

    Raises:
        NoInputError: there is no store, or it has nothing to search.
    """
    vectorizer = open_vectorizer(root, device)
    return Session(vectorizer.snapshot, vectorizer.load, where, vectorizer.load_texts)


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; longer lines are cut after ``MAX_LINE`` + 1 bytes."""
    while line := file.readline(MAX_LINE + 1):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE)


def _question(line: str | bytes) -> tuple[str, str | None]:
    """Return the text of a line, and the error if it is invalid."""
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
