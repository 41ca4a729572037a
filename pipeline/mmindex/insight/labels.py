"""Encode labels with ensembles of prompt templates.

The method is that of CLIP (A. Radford et al., Learning Transferable Visual Models From Natural
Language Supervision, ICML 2021, section 3.1.4): each label is inserted into several templates, the
unit vectors of these texts are averaged, and the average is normalised again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.arguments import as_path, expect, expect_several
from mmindex.core.errors import DataError, UsageError
from mmindex.core.model_names import EMBEDDED
from mmindex.core.resources import user_path
from mmindex.insight.pairs import read_lines, read_table

Float32 = NDArray[np.float32]

PLACE: Final = "{}"
# "photo" follows the CLIP paper and averages over ways of taking a photo. "drawing" does the same
# for drawn scenes.
TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "photo": (
        "a photo of a {}.",
        "a photo of the {}.",
        "a good photo of a {}.",
        "a bad photo of a {}.",
        "a close-up photo of a {}.",
        "a photo of a small {}.",
        "a photo of a large {}.",
    ),
    "drawing": (
        "a {}.",
        "there is a {}.",
        "a drawing of a {}.",
        "a picture of a {}.",
        "we see a {} here.",
    ),
    "plain": ("{}",),
}
MAX_LABELS: Final = 10_000
# Columns of a table that can contain the name of a label.
_NAMES: Final = ("label", "name", "class", "class_name")
_BATCH: Final = 1_024


@dataclass(frozen=True, slots=True)
class Label:
    """A label and its words for the templates."""

    name: str
    words: tuple[str, ...]


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read labels, one per line; words to use instead follow after a tab, separated by ``|``.

    A table (``.csv``, ``.jsonl``, or a ``.tsv`` whose first line names them) has the labels in a
    column ``label``, ``name``, ``class`` or ``class_name``, and optionally a column ``words``.

    Raises:
        NoInputError, PermissionDeniedError, StorageError: the file cannot be read.
        DataError: it is not UTF-8, has fewer than two labels, or one twice.
    """
    labels: dict[str, Label] = {}
    for place, name, listed in _listed(path):
        words = tuple(word.strip() for word in listed.split("|") if word.strip())
        if not name or not words:
            raise DataError(f"{place}: a label without words")
        if name in labels:
            raise DataError(
                f"{place}: the label {name!r} occurs twice",
                "write synonyms on one line: label<TAB>word|other word",
            )
        labels[name] = Label(name, words)
    if not 2 <= len(labels) <= MAX_LABELS:
        raise DataError(
            f"{path}: {len(labels)} labels; classifying needs 2 to {MAX_LABELS:,}",
            "write one label per line",
        )
    return tuple(labels.values())


def _listed(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the place, name and raw words of each label."""
    suffix = path.suffix.lower()
    if suffix in {".csv", ".jsonl"} or (suffix == ".tsv" and _has_header(path)):
        for place, row in read_table(path, (_NAMES,)):
            name = next(row[column] for column in _NAMES if column in row).strip()
            yield place, name, row.get("words") or name
        return
    for number, line in read_lines(path):
        name, tab, words = line.partition("\t")
        yield f"{path}:{number}", name.strip(), words if tab else name


def _has_header(path: Path) -> bool:
    first = next((line for _, line in read_lines(path)), "")
    return any(cell.strip().lower() in _NAMES for cell in first.split("\t"))


def given_labels(labels: str | os.PathLike[str] | Sequence[str]) -> tuple[Label, ...]:
    """Return labels from a file, see :func:`read_labels`, or from a sequence of names.

    Raises:
        TypeError: it is neither.
        UsageError: a name is empty, or the number of labels is wrong.
        MmindexError: the file cannot be read, or is not a file of labels.
    """
    if isinstance(labels, str | os.PathLike):
        return read_labels(as_path(labels, "labels"))
    expect_several(labels, "labels")
    names = [*dict.fromkeys(expect(name, str, "labels", "a str").strip() for name in labels)]
    if not all(names) or not 2 <= len(names) <= MAX_LABELS:
        raise UsageError(f"`labels`: give 2 to {MAX_LABELS:,} names that are not empty")
    return tuple(Label(name, (name,)) for name in names)


def default_templates(model: str) -> str:
    """Return the name of the templates for a model."""
    return "drawing" if model == EMBEDDED else "photo"


def find_templates(name: str) -> tuple[str, ...]:
    """Return a set of templates: one of ``TEMPLATES`` by name, or a file with one per line.

    Raises:
        UsageError: there is no such set or file, or a line does not contain ``{}``.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = user_path(name)
    if not path.is_file():
        raise UsageError(
            f"`templates={name}`: no such file, and none of {', '.join(TEMPLATES)}",
            "a file has one template per line, such as: a photo of a {}.",
        )
    templates = tuple(line.strip() for _, line in read_lines(path))
    bad = [template for template in templates if PLACE not in template]
    if bad or not templates:
        what = f"{bad[0]!r} does not contain {PLACE}" if bad else "it is empty"
        raise UsageError(f"`templates={name}`: {what}", f"{PLACE} is replaced with the label")
    return templates


def label_vectors(
    labels: Sequence[Label],
    templates: Sequence[str],
    encode: Callable[[Sequence[str]], Float32],
) -> Float32:
    """Return one vector per label.

    Args:
        labels: the labels.
        templates: texts in which ``{}`` is replaced with the words of a label.
        encode: returns the float32 (n, dim) unit vectors of n texts.

    Returns:
        float32 (labels, dim), unit length.

    Raises:
        DataError: the vectors of the texts of a label cancel each other out.
    """
    texts = [
        each.replace(PLACE, word) for label in labels for word in label.words for each in templates
    ]
    parts = [encode(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    counts = [len(label.words) * len(templates) for label in labels]
    starts = np.cumsum([0, *counts[:-1]])
    sums = np.add.reduceat(np.concatenate(parts).astype(np.float64), starts, axis=0)
    means = sums / np.array(counts)[:, None]
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    for label, length in zip(labels, lengths[:, 0].tolist(), strict=True):
        if not length > 0:
            raise DataError(f"the model returns no usable vector for the label {label.name!r}")
    vectors: Float32 = (means / lengths).astype(np.float32)
    return vectors
