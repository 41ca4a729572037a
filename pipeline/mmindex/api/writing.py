"""Texts about images: the part of :class:`mmindex.Index` that uses the decoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING

from mmindex.core.arguments import as_count, as_path, expect, expect_several
from mmindex.core.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmindex.decoder.compare import Compared
    from mmindex.decoder.generate import Generated, Search
    from mmindex.decoder.job import Job
    from mmindex.decoder.table import TableReport
    from mmindex.decoder.vqa import VqaReport
    from mmindex.decoder.writer import Ranked, Writer
    from mmindex.search.given import ImageLike
    from mmindex.search.vectorize import Vectorizer
    from mmindex.store.snapshot import Snapshot

_MOST_BEAMS = 32


class Writing:
    """Methods that write about images."""

    def __init__(self) -> None:
        self._writer: Writer | None = None
        self._writer_lock = Lock()

    @property
    def snapshot(self) -> Snapshot:
        """The open version."""
        raise NotImplementedError

    @property
    def vectorizer(self) -> Vectorizer:
        """The encoder of query vectors."""
        raise NotImplementedError

    def ask(self, image: ImageLike, question: str | None = None, *, beams: int = 1) -> Generated:
        """Answer a question about an image, or follow an instruction.

        Args:
            image: a file, the uri or id of an image in the corpus, an opened image (PIL), or an
                array, uint8 (h, w, 3) or (h, w).
            question: for example ``how many boats are there?`` or ``list the animals``; None
                describes the image.
            beams: the number of candidates of the beam search; 1 takes the most likely word.

        Returns:
            the text in :attr:`Generated.text`, in lower case, and its score: the mean natural
            logarithm of the probability of a word.

        Raises:
            TypeError: an argument has the wrong type.
            UsageError: the question has no words or more than 32, or ``beams`` is out of range.
            NoInputError: there is no such file, uri or id.
            DataError: the image cannot be decoded, or the decoder is damaged.
            ModelMismatchError: the model has no decoder, or is no longer the model of the index.
        """
        prompt, search = _prompt(question), _search(beams)
        self._open_writer().model.vocabulary.prompt(prompt)
        return self._open_writer().write([self._opened(image)], prompt, search)[0]

    def rank_answers(self, image: ImageLike, question: str, answers: Sequence[str]) -> list[Ranked]:
        """Order given answers to a question about an image by their likelihood.

        Args:
            image, question: as in :meth:`ask`.
            answers: at least one answer with words.

        Raises:
            TypeError, UsageError, NoInputError, DataError, ModelMismatchError: as :meth:`ask`.
        """
        expect_several(answers, "answers")
        given = [expect(one, str, "answers", "a str") for one in answers]
        if not given or any(not one.strip() for one in given):
            raise UsageError("`answers` has no answer, or an empty one", "one answer per line")
        return self._open_writer().rank(self._opened(image), _prompt(question), given)

    def ask_all(
        self,
        question: str | None = None,
        *,
        out: str | os.PathLike[str],
        where: str | None = None,
        beams: int = 1,
        column: str | None = None,
    ) -> TableReport:
        """Answer a question about every image, and write the answers to a Parquet file.

        If a call is interrupted, the same call continues it later.

        Args:
            question, beams: as in :meth:`ask`.
            out: the new file, with the columns ``image_id``, ``uri``, the text, ``score`` and
                ``error``. Its metadata contains the question and the fingerprint of the model.
            where: an SQL condition on images; None writes about all of them.
            column: the name of the text's column; None: ``answer``, or ``caption`` without a
                question.

        Raises:
            TypeError, UsageError, DataError, ModelMismatchError: as :meth:`ask`, or the file
                exists.
            BusyError: another process is writing the file.
            StorageError: the disk is full, or an I/O error occurs.
        """
        from mmindex.search.filters import select_images

        prompt = _prompt(question)
        job = self._job(out, beams)
        rows = None
        if where is not None:
            rows = select_images(self.snapshot, expect(where, str, "where", "a str"))
        name = column or ("caption" if question is None else "answer")
        return job.describe(prompt, name, rows)

    def ask_questions(
        self,
        questions: str | os.PathLike[str],
        *,
        out: str | os.PathLike[str],
        annotations: str | os.PathLike[str] | None = None,
        beams: int = 1,
    ) -> tuple[TableReport, VqaReport | None]:
        """Answer the questions in a file in the format of VQA v2, and measure the accuracy.

        If a call is interrupted, the same call continues it later.

        Args:
            questions: the JSON file of questions. An ``image_id`` is an id, a uri, or the number at
                the end of an id. Questions about images outside the store are left out.
            out: the new Parquet file, with the columns ``question_id``, ``image_id``, ``uri``,
                ``question``, ``answer``, ``score`` and ``error``.
            annotations: the JSON file with the answers of people; None: do not measure the
                accuracy.
            beams: as in :meth:`ask`.

        Returns:
            The report on the new file, and the accuracy; None without ``annotations``.

        Raises:
            TypeError, UsageError, ModelMismatchError: as :meth:`ask_all`.
            NoInputError: a file does not exist.
            DataError: a file is damaged, none of the questions is about an indexed image, or none
                of these questions has an annotation.
            BusyError: another process is writing the file.
            StorageError: the disk is full, or an I/O error occurs.
        """
        job = self._job(out, beams)
        known = None
        if annotations is not None:
            from mmindex.decoder.vqa import read_annotations

            known = read_annotations(as_path(annotations, "annotations"))
        report, asked = job.answer(as_path(questions, "questions"), known)
        return report, None if known is None else job.evaluate(asked, known)

    def compare_captions(self, path: str | os.PathLike[str]) -> Compared:
        """Compare descriptions from :meth:`ask_all` with the captions of the store.

        Args:
            path: a Parquet file with the columns ``image_id`` and ``caption``.

        Raises:
            NoInputError: there is no such file.
            DataError: it is damaged, or no image in it has a caption.
            MissingPackageError: the extra ``[metrics]`` is not installed.
        """
        from mmindex.decoder.compare import compare_captions

        return compare_captions(self.vectorizer, as_path(path, "path"))

    def _job(self, out: str | os.PathLike[str], beams: int) -> Job:
        from mmindex.decoder.job import Job

        path, search = as_path(out, "out"), _search(beams)
        return Job(self._open_writer(), self.snapshot, search, path)

    def _open_writer(self) -> Writer:
        with self._writer_lock:
            if self._writer is None:
                from mmindex.decoder.writer import open_writer

                self._writer = open_writer(self.vectorizer)
            return self._writer

    def _opened(self, image: ImageLike) -> Image:
        from mmindex.search.given import opened_image

        return opened_image(image, self.vectorizer)


def _prompt(question: str | None) -> str:
    if question is None:
        from mmindex.decoder.questions import DESCRIBE

        return DESCRIBE
    text: str = expect(question, str, "question", "a str")
    return text


def _search(beams: int) -> Search:
    from mmindex.decoder.generate import Search

    count = as_count(beams, "beams")
    if count > _MOST_BEAMS:
        raise UsageError(f"`beams` is {count}; it must be from 1 to {_MOST_BEAMS}")
    return Search(beams=count)
