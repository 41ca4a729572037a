"""Learn labels from a table with a few labelled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError, MmindexError
from mmindex.insight.classify import Classifier, label_numbers, logit_scale
from mmindex.insight.few_shot import METHODS, Examples, Learned, Method, learn, most_examples
from mmindex.insight.labels import (
    MAX_LABELS,
    Label,
    default_templates,
    find_templates,
    label_vectors,
)
from mmindex.insight.pairs import beside, read_table
from mmindex.models.encoder import Encoder
from mmindex.search.vectorize import Vectorizer

Float32 = NDArray[np.float32]

CONTEXT: Final = "context"
_IMAGE: Final = ("image", "path", "id")
# Each step encodes the texts of all labels; on two cores, this takes seconds with ViT-B-32.
_MOST_CONTEXT_LABELS: Final = 100


@dataclass(frozen=True, slots=True)
class Shots:
    """The content of a table of labelled images.

    Attributes:
        path: the table.
        labels: the label of each image, by file, uri or id.
    """

    path: Path
    labels: Mapping[str, str]


def read_shots(path: Path) -> Shots:
    """Read a table with the columns ``image`` (or ``path`` or ``id``) and ``label``.

    Relative paths are relative to the table.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the file cannot be read.
        UsageError: the extension is not .csv, .tsv or .jsonl.
        DataError: a line is invalid, or an image has two labels.
    """
    labels: dict[str, str] = {}
    for place, row in read_table(path, (_IMAGE, "label")):
        image = next(row[name] for name in _IMAGE if name in row)
        label = row["label"].strip()
        if not image or not label:
            raise DataError(
                f"{place}: no {'label' if image else 'image'}",
                "write an image and its label on each line",
            )
        if labels.setdefault(beside(path, image), label) != label:
            raise DataError(
                f"{place}: {image!r:.80} has another label in an earlier line",
                "give each image one label",
            )
    return Shots(path, labels)


def shown_labels(shots: Shots) -> tuple[Label, ...]:
    """Return the labels in a table, sorted.

    Raises:
        DataError: there are fewer than two, or too many.
    """
    names = sorted(set(shots.labels.values()))
    if not 2 <= len(names) <= MAX_LABELS:
        raise DataError(
            f"{shots.path}: {len(names)} labels; learning needs 2 to {MAX_LABELS:,}",
            "write an image and its label on each line",
        )
    return tuple(Label(name, (name,)) for name in names)


def examples_of(shots: Shots, labels: Sequence[str], vectorizer: Vectorizer) -> Examples:
    """Encode the images of a table. Images with the same vector and label count once.

    Raises:
        DataError: a label has no image, an image has a label that is not among ``labels``, an image
            cannot be used, or there are too many images.
        NoInputError: there is no such file, uri or id.
    """
    most = most_examples(len(labels))
    if len(shots.labels) > most:
        raise DataError(
            f"{shots.path}: {len(shots.labels):,} images; at most {most:,} can be used for "
            f"{len(labels):,} labels",
            "use fewer images of each label",
        )
    find = label_numbers(labels)
    owners = {image: find(label) for image, label in shots.labels.items()}
    for image, owner in owners.items():
        if owner is None:
            label = shots.labels[image]
            raise DataError(
                f"{shots.path}: {image!r:.80} has the label {label!r:.80}, which is not among the "
                "labels",
                "use the same spelling in `learn` and `labels`",
            )
    shown = set(owners.values())
    if without := [label for number, label in enumerate(labels) if number not in shown]:
        raise DataError(
            f"{shots.path}: no image for {len(without):,} of {len(labels):,} labels, for example "
            f"{without[0]!r:.80}",
            "add at least one image of each label",
        )
    vectors = _vectors(shots, vectorizer)
    numbers = np.array([*owners.values()], dtype=np.int64)
    rows = {
        (vector.tobytes(), int(n)): row
        for row, (vector, n) in enumerate(zip(vectors, numbers, strict=True))
    }
    kept = sorted(rows.values())
    return Examples(vectors[kept], numbers[kept])


def _vectors(shots: Shots, vectorizer: Vectorizer) -> Float32:
    found = list(vectorizer.named_images(list(shots.labels)))
    good = [one for one in found if not isinstance(one, MmindexError)]
    if bad := [one for one in found if isinstance(one, MmindexError)]:
        more = f" (and {len(bad) - 1:,} more)" if len(bad) > 1 else ""
        raise type(bad[0])(f"{shots.path}: {bad[0].message}{more}", bad[0].hint)
    return np.stack([one.vector for one in good])


@dataclass(frozen=True, slots=True)
class Lesson:
    """Labels learned from images.

    Attributes:
        learned: the result.
        images: the number of different images.
        not_tried: the methods that were not tried, with the reasons.
    """

    learned: Learned
    images: int
    not_tried: Mapping[str, str]


def zero_shot(
    vectorizer: Vectorizer,
    labels: Sequence[Label],
    templates: str | None = None,
    scale: float | None = None,
) -> Classifier:
    """Return the classifier without examples.

    Args:
        templates: see :func:`mmindex.insight.labels.find_templates`; None: the defaults for the
            model.
        scale: the logit scale; None: that of the model.

    Raises:
        UsageError: there are no such templates, or the model has no logit scale.
        DataError: the model returns no usable vector for a label.
    """
    prompts = _templates(vectorizer, templates)
    if scale is None:
        # The whole model is needed, and as soon as it is loaded, it encodes the texts too.
        scale = logit_scale(vectorizer.encoder)
    return Classifier(
        labels=tuple(label.name for label in labels),
        vectors=label_vectors(labels, prompts, vectorizer.texts),
        scale=scale,
    )


def learn_labels(
    vectorizer: Vectorizer,
    shots: Shots,
    labels: Sequence[Label],
    templates: str | None = None,
    scale: float | None = None,
) -> Lesson:
    """Learn labels with the best method; for the other arguments, see :func:`zero_shot`.

    Raises:
        MmindexError: see :func:`zero_shot` and :func:`examples_of`.
    """
    examples = examples_of(shots, [label.name for label in labels], vectorizer)
    zero = zero_shot(vectorizer, labels, templates, scale)
    learner, reason = _context(vectorizer.encoder, labels, _templates(vectorizer, templates))
    methods = dict(METHODS) if learner is None else {**METHODS, CONTEXT: learner}
    learned = learn(zero, examples, methods)
    return Lesson(learned, len(examples), {CONTEXT: reason} if reason else {})


def _templates(vectorizer: Vectorizer, name: str | None) -> tuple[str, ...]:
    return find_templates(name or default_templates(vectorizer.snapshot.encoder.model))


def _context(
    encoder: Encoder, labels: Sequence[Label], templates: Sequence[str]
) -> tuple[Method | None, str]:
    """Return the method that learns a context, or the reason why it is not tried."""
    from mmindex.models.openclip import OpenClipEncoder

    if sum(len(label.words) for label in labels) > _MOST_CONTEXT_LABELS:
        return None, f"more than {_MOST_CONTEXT_LABELS} labels and synonyms"
    if not isinstance(encoder, OpenClipEncoder):
        return None, "the model is not an open_clip model"
    if encoder.info.precision == "int8":
        return None, "the precision of the model is int8"
    from mmindex.insight.context import context_learner

    learner = context_learner(encoder, labels, templates)
    return learner, "" if learner else "no template has words in front of the label"
