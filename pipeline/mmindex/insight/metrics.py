"""Metrics of thresholds on scores and of labels, in numpy.

An undefined metric (precision without predicted matches, ROC AUC with a single class) is None, not
0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Threshold:
    """The lowest score of a match.

    Attributes:
        value: the score.
        balanced_accuracy: the mean of the share of matched pairs at or above it and the share of
            unmatched pairs below it, for the pairs that it was fitted to.
        matched, unmatched: the numbers of these pairs.
    """

    value: float
    balanced_accuracy: float
    matched: int
    unmatched: int


@dataclass(frozen=True, slots=True)
class PairReport:
    """Metrics of a threshold on labelled pairs; shares are 0 to 1."""

    pairs: int
    matched: int
    accuracy: float
    precision: float | None
    recall: float | None
    f1: float | None
    roc_auc: float | None


@dataclass(frozen=True, slots=True)
class ClassScore:
    """The metrics of one label, and its number of items."""

    label: str
    support: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class LabelReport:
    """The metrics of predicted labels.

    Attributes:
        items: number of items with a known label.
        accuracy: share of items whose first label is correct.
        top_k, top_k_accuracy: share of items whose correct label is among the first k.
        macro_f1: mean F1 of the labels that occur as true or predicted labels.
        classes: the metrics of each label.
        confusion: int64 (labels, labels): items by true label (row) and predicted label (column).
        left_out: number of items that are not counted, by reason.
    """

    items: int
    accuracy: float
    top_k: int
    top_k_accuracy: float
    macro_f1: float
    classes: tuple[ClassScore, ...]
    confusion: Int64
    left_out: Mapping[str, int] = field(default_factory=dict)


def fit_threshold(matched: Float64, unmatched: Float64) -> Threshold:
    """Return the threshold with the best balanced accuracy (Youden's J, Cancer 3:32, 1950).

    It is in the middle between two adjacent scores; if several gaps are equally good, in the widest
    of them. The accuracy is balanced because the number of unmatched pairs is arbitrary.

    Args:
        matched, unmatched: float64 scores, at least one of each.

    Raises:
        DataError: there are no matched or no unmatched scores.
    """
    if not len(matched) or not len(unmatched):
        raise DataError(
            f"a threshold needs matched and unmatched pairs: {len(matched)} matched,"
            f" {len(unmatched)} unmatched"
        )
    # A threshold below the lowest score makes everything a match.
    scores = np.unique(np.concatenate([matched, unmatched]))
    edges = np.concatenate([[scores[0] - 1e-6], scores, [scores[-1] + 1e-6]])
    cuts, widths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    hits = 1 - np.searchsorted(np.sort(matched), cuts) / len(matched)
    rejections = np.searchsorted(np.sort(unmatched), cuts) / len(unmatched)
    balanced = (hits + rejections) / 2
    # Equal sums can differ by rounding, because they are computed from different counts.
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    place = best[int(np.argmax(widths[best]))]
    return Threshold(float(cuts[place]), float(balanced[place]), len(matched), len(unmatched))


def pair_report(labels: Bools, scores: Float64, threshold: float) -> PairReport:
    """Evaluate a threshold on labelled pairs.

    Args:
        labels: bool (n,), true for a matched pair.
        scores: float64 (n,).
        threshold: the lowest score of a match.

    Raises:
        DataError: there are no pairs.
    """
    if not len(labels):
        raise DataError("no pairs to evaluate")
    told = scores >= threshold
    right = int((told & labels).sum())
    precision = _ratio(right, int(told.sum()))
    recall = _ratio(right, int(labels.sum()))
    return PairReport(
        pairs=len(labels),
        matched=int(labels.sum()),
        accuracy=float((told == labels).mean()),
        precision=precision,
        recall=recall,
        f1=_ratio(2 * right, int(told.sum()) + int(labels.sum())),
        roc_auc=roc_auc(labels, scores),
    )


def roc_auc(labels: Bools, scores: Float64) -> float | None:
    """Return the probability that a matched pair scores above an unmatched one; ties count as half.

    This is the area under the ROC curve (J. A. Hanley and B. J. McNeil, Radiology 143:29, 1982),
    computed with the rank sum of Mann and Whitney. None if there is only one kind of pair.
    """
    wins, losses = int(labels.sum()), int((~labels).sum())
    if not wins or not losses:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle = ends - (counts - 1) / 2  # mean rank of equal scores, from 1
    ranks = middle[inverse]
    return float((ranks[labels].sum() - wins * (wins + 1) / 2) / (wins * losses))


def label_report(labels: tuple[str, ...], truth: Int64, ranked: Int64) -> LabelReport:
    """Evaluate predicted labels.

    Args:
        labels: the names.
        truth: int64 (n,), the number of the correct label of each item.
        ranked: int64 (n, k), the k predicted labels, best first.

    Raises:
        DataError: there are no items.
    """
    if not len(truth):
        raise DataError("no items with a known label to evaluate")
    told = ranked[:, 0]
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (truth, told), 1)
    right, support, answers = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    classes = tuple(
        ClassScore(
            label=label,
            support=int(support[n]),
            precision=_ratio(int(right[n]), int(answers[n])),
            recall=_ratio(int(right[n]), int(support[n])),
            f1=_ratio(2 * int(right[n]), int(answers[n]) + int(support[n])),
        )
        for n, label in enumerate(labels)
    )
    return LabelReport(
        items=len(truth),
        accuracy=float((told == truth).mean()),
        top_k=ranked.shape[1],
        top_k_accuracy=float((ranked == truth[:, None]).any(axis=1).mean()),
        macro_f1=float(np.mean([one.f1 for one in classes if one.f1 is not None])),
        classes=classes,
        confusion=confusion,
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
