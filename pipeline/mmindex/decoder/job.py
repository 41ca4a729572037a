"""Jobs that write texts about the images of a store to a Parquet file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from mmindex.core.errors import MmindexError
from mmindex.decoder.generate import Search
from mmindex.decoder.table import Row, TableReport, write_rows
from mmindex.decoder.tasks import Task, about_images, after, one_prompt
from mmindex.decoder.vqa import (
    Annotation,
    Question,
    VqaReport,
    compare,
    read_questions,
    require_known,
)
from mmindex.decoder.writer import Writer, Written
from mmindex.store.snapshot import Snapshot

if TYPE_CHECKING:
    from mmindex.search.filters import Rows

_TEXT = pa.string()
_SCORE = [("score", pa.float32()), ("error", _TEXT)]


@dataclass(frozen=True, slots=True)
class Job:
    """A job with a decoder, a version of a store and a new file.

    Attributes:
        writer: the decoder.
        snapshot: the version of the store.
        search: the settings of the beam search.
        out: the new file.
    """

    writer: Writer
    snapshot: Snapshot
    search: Search
    out: Path

    def describe(self, prompt: str, column: str, rows: Rows | None = None) -> TableReport:
        """Write one text about every image: ``image_id``, ``uri``, the text, ``score``, ``error``.

        Args:
            prompt: the question or instruction.
            column: the name of the column of texts.
            rows: bool (images,), the images to write about; None for all.

        Raises:
            UsageError: the prompt has no known words or too many words, or the file exists.
            MmindexError: the file cannot be written.
        """
        if (error := self.writer.refusal(prompt)) is not None:
            raise error
        chosen = "all" if rows is None else hashlib.sha256(rows.tobytes()).hexdigest()
        schema = pa.schema(
            [("image_id", _TEXT), ("uri", _TEXT), (column, _TEXT), *_SCORE],
            metadata=self._facts({"prompt": prompt, "rows": chosen}),
        )
        total = self.snapshot.manifest.counts.indexed if rows is None else int(rows.sum())
        return self._write(
            schema,
            lambda: one_prompt(self.snapshot, prompt, rows),
            lambda one: (one.id, one.uri),
            total,
        )

    def answer(
        self, questions: Path, known: Mapping[str, Annotation] | None = None
    ) -> tuple[TableReport, list[Question]]:
        """Answer the questions in a VQA file; see :mod:`mmindex.decoder.vqa`.

        The table has the columns ``question_id``, ``image_id``, ``uri``, ``question``, ``answer``,
        ``score`` and ``error``.

        Args:
            questions: the file.
            known: the answers of people, by question id, for :meth:`evaluate` after this.

        Returns:
            The report, and the questions in the file.

        Raises:
            DataError: the file of questions is damaged, none is about an indexed image, or none of
                these is in ``known``.
            UsageError: ``out`` exists.
            MmindexError: a file cannot be read or written.
        """
        asked = read_questions(questions)
        tasks = about_images(self.snapshot, asked)
        if known is not None:
            require_known((name for task in tasks for name in task.names), known)
        content = [(task.id, task.names, task.prompts) for task in tasks]
        schema = pa.schema(
            [
                ("question_id", _TEXT),
                ("image_id", _TEXT),
                ("uri", _TEXT),
                ("question", _TEXT),
                ("answer", _TEXT),
                *_SCORE,
            ],
            metadata=self._facts({"questions": hashlib.sha256(repr(content).encode()).hexdigest()}),
        )
        report = self._write(
            schema,
            lambda: iter(tasks),
            lambda one: (one.name, one.id, one.uri, one.prompt),
            sum(len(task.prompts) for task in tasks),
        )
        return report, asked

    def evaluate(self, asked: list[Question], known: Mapping[str, Annotation]) -> VqaReport:
        """Compare the answers in the new file with those of people, by question id.

        Raises:
            DataError: no answered question is in ``known``.
        """
        table = pq.read_table(self.out, columns=["question_id", "answer"])
        names, texts = (table[name].to_pylist() for name in ("question_id", "answer"))
        answers = {name: text for name, text in zip(names, texts, strict=True) if text is not None}
        words = {str(one.question_id): one.question for one in asked}
        blind = self.writer.blind((words[name] for name in answers if name in known), self.search)
        guesses = {name: blind[words[name]] for name in answers if name in known}
        return compare(answers, guesses, known, len(asked))

    def _write(
        self,
        schema: pa.Schema,
        tasks: Callable[[], Iterator[Task]],
        first: Callable[[Written], tuple[str, ...]],
        total: int,
    ) -> TableReport:
        def rows(done: int) -> Iterator[Row]:
            for one in self.writer.each(after(tasks(), done), self.search):
                yield (*map(_valid, first(one)), *_found(one))

        return write_rows(self.out, schema, rows, total)

    def _facts(self, facts: dict[str, str]) -> dict[str, str]:
        info = self.snapshot.encoder
        known = {
            "model": info.model,
            "fingerprint": info.fingerprint,
            "decoder": self.writer.model.digest,
            "beams": str(self.search.beams),
            "images": self.snapshot.manifest.require("images").sha256,
        }
        return {f"mmindex.{name}": text for name, text in (known | facts).items()}


def _found(one: Written) -> Row:
    if isinstance(one.found, MmindexError):
        return None, None, _valid(one.found.message)
    return one.found.text, one.found.score, None


def _valid(text: str) -> str:
    """Return a text as valid UTF-8, with U+FFFD for lone surrogates."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
