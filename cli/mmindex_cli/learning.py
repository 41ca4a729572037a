"""``classify --learn``: learn labels from a few labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmindex.core.display import visible

if TYPE_CHECKING:
    from mmindex.insight.learning import Lesson
    from mmindex.search.vectorize import Vectorizer
    from mmindex.store.manifest import EncoderInfo
    from mmindex_cli.output import Cell, Form


@dataclass(frozen=True, slots=True)
class Learning:
    """What labels are learned from.

    Attributes:
        table: the file with the labelled images.
        labels: the file with the labels; None: the labels in the table.
        templates, scale: as for zero-shot classification.
        out: the file to write.
    """

    table: Path
    labels: Path | None
    templates: str | None
    scale: float | None
    out: Path

    def run(self, vectorizer: Vectorizer) -> Lesson:
        """Learn the labels and write the file."""
        from mmindex.insight.labels import read_labels
        from mmindex.insight.learned import check_learned_target, save_learned
        from mmindex.insight.learning import learn_labels, read_shots, shown_labels

        check_learned_target(self.out)
        shots = read_shots(self.table)
        labels = shown_labels(shots) if self.labels is None else read_labels(self.labels)
        lesson = learn_labels(vectorizer, shots, labels, self.templates, self.scale)
        learned = lesson.learned
        info = vectorizer.snapshot.encoder
        save_learned(self.out, learned.classifier, learned.chosen.method, info)
        return lesson


def print_lesson(lesson: Lesson, out: Path, info: EncoderInfo, form: Form) -> None:
    """Print the accuracy of each method, and which one was chosen."""
    from mmindex_cli.output import emit

    learned = lesson.learned
    emit(
        [lesson],
        form,
        text=lambda _: _lines(lesson, out),
        json=lambda _: {
            "file": str(out),
            "method": learned.chosen.method,
            "labels": len(learned.classifier.labels),
            "images": lesson.images,
            "methods": [
                {"method": one.method, "accuracy": round(one.accuracy, 6)} for one in learned.trials
            ],
            "not_tried": dict(lesson.not_tried),
            "model": info.model,
            "fingerprint": info.fingerprint,
        },
        tsv=(("method", "accuracy", "chosen"), _rows),
    )


def _rows(lesson: Lesson) -> Iterator[Sequence[Cell]]:
    for one in lesson.learned.trials:
        yield one.method, one.accuracy, one is lesson.learned.chosen


def _lines(lesson: Lesson, out: Path) -> Iterator[str]:
    learned = lesson.learned
    yield f"{'method':<14}accuracy in cross-validation"
    for one in learned.trials:
        mark = "  chosen" if one is learned.chosen else ""
        yield f"{one.method:<14}{100 * one.accuracy:.1f} %{mark}"
    for method, reason in lesson.not_tried.items():
        yield f"{method:<14}not tried: {reason}"
    labels = len(learned.classifier.labels)
    yield f"{visible(str(out))}: {labels:,} labels from {lesson.images:,} images"
