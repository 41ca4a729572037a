"""Answer queries: texts and images to hits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import NoVectorError, UsageError
from mmindex.core.memo import Memo
from mmindex.core.modality import Modality
from mmindex.core.records import Hit
from mmindex.keywords.index import query_words
from mmindex.search.answer import Answer
from mmindex.search.fusion import fuse, part_weights
from mmindex.search.hits import Limit
from mmindex.search.lines import SHOWN, text_of
from mmindex.search.opened import Opened
from mmindex.search.parts import Question
from mmindex.search.rank import By, by_both, by_words
from mmindex.search.results import result, vector_results
from mmindex.search.scope import Scope
from mmindex.search.vectorize import open_vectorizer
from mmindex.search.words import check_words, words_beside_vector, words_help
from mmindex.store.snapshot import TABLES

if TYPE_CHECKING:
    from mmindex.search.filters import Rows

# Lines of a query file per batch: enough for full speed of model, index and tables, but few enough
# for fast answers, and for 256 x k hits in memory.
BATCH = 256


class Session:
    """Searches in one published version, or in the images of it that match a condition.

    Several threads can search at once. As a context manager, it releases the model at the end.

    Args:
        opened: the version; sessions with other conditions share it.
        rows: bool (images,), the images that match the condition; hits are such images, or captions
            of them. None: all.

    Attributes:
        snapshot: the version.
        vectorizer: the model.
        rows: as above.
    """

    def __init__(self, opened: Opened, rows: Rows | None = None) -> None:
        self.snapshot = opened.snapshot
        self.vectorizer = opened.vectorizer
        self.rows = rows
        self._opened = opened
        self._version = opened.snapshot.manifest.version
        self._ids: Memo[NDArray[np.int64]] = Memo(len(Modality))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_error: object) -> None:
        self.vectorizer.close()

    def filtered(self, where: str | None, timeout_s: float | None = None) -> Session:
        """Return a session of the same version with another condition.

        Args:
            where: a condition on images, see :mod:`mmindex.search.filters`; None: all images.
            timeout_s: the time limit for the condition; None: as on the command line.

        Raises:
            UsageError: the condition is invalid, or takes too long.
        """
        if where is None:
            return Session(self._opened)
        from mmindex.search.filters import TIMEOUT_S, select_images  # only if needed: DuckDB

        return Session(self._opened, select_images(self.snapshot, where, timeout_s or TIMEOUT_S))

    def prepare(self, to: Modality) -> None:
        """Load what searches need, so that the first one is as fast as the others.

        Raises:
            NoInputError: this side has nothing to search.
            DataError: the index is damaged.
        """
        self.scope(to)
        self.snapshot.keys(to)
        for table in {TABLES[Modality.IMAGE], TABLES[to]}:
            self.snapshot.rows(table, now=True)

    def scope(self, to: Modality) -> Scope:
        """Return the vectors of one side that meet the condition.

        Raises:
            NoInputError: this side has nothing to search.
            DataError: the index is damaged.
        """
        searcher, rows, ids = self._opened.searcher(to), self.rows, None
        if rows is not None:
            from mmindex.search.filters import ids_of

            ids = self._ids.get(to, lambda: ids_of(self.snapshot, to, rows))
        return Scope(self.snapshot, searcher, to, rows, ids)

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
            check_words(by, to, limit)
            by = "meaning" if by == "both" and not words_help(self._opened.keywords()) else by
        pending = iter(lines)
        while batch := list(islice(pending, BATCH)):
            texts = [text_of(line) for line in batch]
            good = [text for text, error in texts if error is None]
            answered = iter(self.texts(good, to, limit, by))
            for text, error in texts:
                yield (
                    next(answered)
                    if error is None
                    else Answer(text, to, self._version, error=error)
                )

    def image(self, where: str, to: Modality | None, limit: Limit) -> Answer:
        """Search with an image: a file, or the uri or id of an image in the corpus.

        By default, it searches captions if the corpus has any, otherwise images.

        Raises:
            NoInputError: there is no such file, uri or id.
            DataError: the image cannot be decoded.
            ModelMismatchError: as :meth:`text`.
        """
        to = to or self._side_of_image()
        self.snapshot.index(to)
        judge = self._opened.calibration(Modality.IMAGE, to, needed=limit.good)
        asked = self.vectorizer.named_image(where)
        [found] = vector_results(self.scope(to), asked.vector[None], limit, judge)
        return Answer(where, to, self._version, found, image=asked.uri)

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
            check_words("both", to, limit)
            if words_help(self._opened.keywords()):
                words = words_beside_vector(question.words)
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
        kind = Modality.IMAGE if question.is_image else None
        judge = self._opened.calibration(kind, to, needed=limit.good)
        weights = part_weights(len(question.wanted), len(question.unwanted), question.weights)
        vectors, asked = self.vectorizer.parts((*question.wanted, *question.unwanted))
        wanted = asked[: len(question.wanted)]
        given = {one.key for one in wanted if one is not None and one.key is not None}
        left_out = given if question.others else set()
        fused = fuse(vectors, weights)
        if words:
            found = self._by_both(fused, words, limit, left_out)
        else:
            [found] = vector_results(self.scope(to), fused[None], limit, judge, left_out)
        image = next((one.uri for one in wanted if one is not None), None)
        return Answer(question.title, to, self._version, found, image=image)

    def keywords(self, text: str, to: Modality | None, limit: Limit) -> Answer:
        """Find images by the words of a text alone, without the model; scores are BM25.

        Raises:
            UsageError: the text has no words, the search is for captions, or a lowest score or
                only good hits are wanted.
            NoInputError: the version has no keyword index.
            DataError: the keyword index is damaged.
        """
        check_words("words", to or Modality.IMAGE, limit)
        answer = self._by_words(text, limit)
        if answer.error is not None:
            raise UsageError(
                f"`keywords={text[:SHOWN]!r}`: {answer.error}", "pass letters or numbers"
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
        judge = self._opened.calibration(Modality.TEXT, to, needed=limit.good)
        if not texts:
            return []
        vectors = self.vectorizer.encode_texts(texts)
        good = good_rows(vectors)
        words = [words_beside_vector(text) if by == "both" else [] for text in texts]
        plain = good & np.array([not some for some in words])
        hubness = self._opened.hubness() if to is Modality.IMAGE else None
        near = iter(vector_results(self.scope(to), vectors[plain], limit, judge, hubness=hubness))
        answers = []
        for text, vector, some, fine in zip(texts, vectors, words, good.tolist(), strict=True):
            if fine:
                found = self._by_both(vector, some, limit) if some else next(near)
                answers.append(Answer(text, to, self._version, found))
            else:
                why = "the model returns no usable vector for this text"
                answers.append(Answer(text, to, self._version, error=why))
        return answers

    def _by_words(self, text: str, limit: Limit) -> Answer:
        words = query_words(text)
        if not words:
            return Answer(text, Modality.IMAGE, self._version, error="no words to search for")
        scope = self.scope(Modality.IMAGE)
        found = result(scope, by_words(scope, self._opened.keywords(), words), limit)
        return Answer(text, Modality.IMAGE, self._version, found, cosine=False)

    def _by_both(
        self,
        vector: NDArray[np.float32],
        words: list[str],
        limit: Limit,
        left_out: Set[str] = frozenset(),
    ) -> tuple[Hit, ...]:
        """Return the images for a vector and for words."""
        scope = self.scope(Modality.IMAGE)
        find = by_both(scope, self._opened.keywords(), words, vector, limit)
        return result(scope, find, limit, left_out=left_out)


def open_session(root: Path, device: str = "auto") -> Session:
    """Open the store at ``root`` for queries.

    Args:
        root: the folder of the store.
        device: the device for the model, if it is needed: ``auto``, ``cpu``, ``cuda`` ...

    Raises:
        NoInputError: there is no store, or it has nothing to search.
    """
    vectorizer = open_vectorizer(root, device)
    return Session(Opened(vectorizer.snapshot, vectorizer.load, vectorizer.load_texts))
