"""Zero-shot classification: choose the label whose vector is nearest to that of the image.

An image ``x`` gets label ``i`` with the probability ``softmax(s cos(x, t_i))`` over the labels,
where ``s`` is the learned logit scale of the model (CLIP, section 2.3 and figure 3). The
probabilities show which of *these* labels fits best, not whether any of them fits.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError, MmindexError, UsageError
from mmindex.core.modality import Modality
from mmindex.insight.metrics import LabelReport, label_report
from mmindex.models.encoder import Encoder
from mmindex.search.columns import output_columns
from mmindex.search.vectorize import Vectorizer
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot

if TYPE_CHECKING:
    from mmindex.search.filters import Rows

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Rows of the images table per step: 8,192 x 512 float32 are 16 MiB.
_BATCH: Final = 8_192
# Number of similarities to labelled images in memory: 32 MiB as float64.
_SIMILARITIES: Final = 1 << 22


@runtime_checkable
class HasLogitScale(Protocol):
    """An encoder with a logit scale."""

    @property
    def logit_scale(self) -> float:
        """The factor for cosine similarities before a softmax."""


@dataclass(frozen=True, slots=True)
class Cache:
    """Labelled images; an image that is similar to them gets higher logits for their labels.

    The method is Tip-Adapter (R. Zhang et al., Tip-Adapter: Training-free Adaption of CLIP for
    Few-shot Classification, ECCV 2022), with the mean over the images of a label, not their sum.

    Attributes:
        images: float32 (n, dim), unit length.
        labels: int64 (n,), the number of the label of each image.
        weight: the largest value that is added to a logit.
        sharpness: how fast the added value decreases with the cosine distance.
    """

    images: Float32
    labels: Int64
    weight: float
    sharpness: float

    def logits(self, images: Float64, labels: int) -> Float64:
        """Return the values to add: float64 (n, labels) for float64 (n, dim)."""
        counts = np.bincount(self.labels, minlength=labels)
        share = np.zeros((len(self.labels), labels))
        share[np.arange(len(self.labels)), self.labels] = self.weight / counts[self.labels]
        known = self.images.T.astype(np.float64)
        found = np.empty((len(images), labels))
        rows = max(1, _SIMILARITIES // len(self.labels))
        for start in range(0, len(images), rows):
            near = images[start : start + rows] @ known
            found[start : start + rows] = np.exp(self.sharpness * (near - 1)) @ share
        return found


@dataclass(frozen=True, slots=True)
class Classifier:
    """Labels with their vectors.

    Attributes:
        labels: the names.
        vectors: float32 (labels, dim); unit length unless learned.
        scale: the logit scale of the model.
        cache: labelled images that are compared as well; None if there are none.
    """

    labels: tuple[str, ...]
    vectors: Float32
    scale: float
    cache: Cache | None = None

    def logits(self, images: Float32) -> Float64:
        """Return the logits of float32 (n, dim) images: float64 (n, labels)."""
        wide = images.astype(np.float64)
        logits: Float64 = self.scale * (wide @ self.vectors.T.astype(np.float64))
        return logits if self.cache is None else logits + self.cache.logits(wide, len(self.labels))

    def rank(self, images: Float32, k: int) -> tuple[Int64, Float64]:
        """Return the k best labels of float32 (n, dim) images: int64 and float64 (n, k).

        These are the numbers of the labels, best first (for equal ones, in list order), and their
        probabilities over all labels.
        """
        logits = self.logits(images)
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        shares /= shares.sum(axis=1, keepdims=True)
        order = np.argsort(-shares, axis=1, kind="stable")[:, :k].astype(np.int64)
        return order, np.take_along_axis(shares, order, axis=1)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predicted labels of an image.

    Attributes:
        id: the id of the image in the corpus, or the file name from the user.
        labels: numbers of the best labels, best first; empty if there is an error.
        shares: the probabilities.
        truth: the name of the correct label, if known.
        error: why the image cannot be used.
        uri: the location of the image; absolute for a file.
    """

    id: str
    labels: tuple[int, ...]
    shares: tuple[float, ...]
    truth: str | None = None
    error: str | None = None
    uri: str = ""


def logit_scale(encoder: Encoder) -> float:
    """Return the logit scale of the model.

    Raises:
        UsageError: the model has no logit scale.
    """
    if not isinstance(encoder, HasLogitScale):
        raise UsageError(
            f"the model {encoder.info.model!r} has no logit scale for probabilities",
            "set one with `scale` (100 for CLIP)",
        )
    return encoder.logit_scale


def classify_files(
    vectorizer: Vectorizer, classifier: Classifier, wheres: Sequence[str], k: int
) -> Iterator[Prediction]:
    """Classify images (files, uris or ids) in order; unusable images have an error."""
    for where, found in zip(wheres, vectorizer.named_images(wheres), strict=True):
        if isinstance(found, MmindexError):
            yield Prediction(where, (), (), error=found.message)
            continue
        order, shares = classifier.rank(found.vector[None], k)
        told = tuple(order[0].tolist()), tuple(shares[0].tolist())
        yield Prediction(where, *told, uri=_absolute(found.uri))


def classify_corpus(
    snapshot: Snapshot, classifier: Classifier, k: int, *, truth: str | None, rows: Rows | None
) -> Iterator[Prediction]:
    """Classify every image of the corpus with its stored vector, in table order.

    Args:
        snapshot: the version.
        classifier: the labels.
        k: the number of labels per image.
        truth: the column of the images table with the correct label; None if unknown.
        rows: bool (images,), the images to classify; None for all.

    Raises:
        UsageError: there is no such column; the message lists the columns.
        NoInputError: the version has no images.
    """
    vectors, ids = snapshot.vectors(Modality.IMAGE), snapshot.row_ids(Modality.IMAGE)
    names = output_columns(snapshot)  # the correct labels are shown next to the predictions
    if truth is not None and truth not in names:
        raise UsageError(f"`truth={truth}`: no such column", f"columns: {', '.join(names)}")
    columns = ["image_id", "uri", *([truth] if truth is not None else [])]
    first = 0
    for batch in snapshot.batches("images", columns, _BATCH):
        here = slice(first, first + batch.num_rows)
        first = here.stop
        chosen = np.ones(batch.num_rows, dtype=np.bool_) if rows is None else rows[here]
        part = batch.filter(pa.array(chosen))
        order, shares = classifier.rank(vectors.take(ids[here][chosen]).astype(np.float32), k)
        right = contents(part[truth]) if truth is not None else [None] * part.num_rows
        ranked = zip(order.tolist(), shares.tolist(), strict=True)
        for name, uri, (labels, chances), label in zip(
            contents(part["image_id"]), contents(part["uri"]), ranked, right, strict=True
        ):
            told = None if label is None else str(label)
            yield Prediction(name, tuple(labels), tuple(chances), told, uri=uri)


def _absolute(uri: str) -> str:
    return uri if "://" in uri else os.path.abspath(uri)  # noqa: PTH100 # may be in an archive


def label_numbers(labels: Sequence[str]) -> Callable[[str], int | None]:
    """Return a function that finds the number of a label.

    Letter case is ignored if no two labels differ only in case.
    """
    fold = str.casefold if len(set(map(str.casefold, labels))) == len(labels) else str
    numbers = {fold(label): number for number, label in enumerate(labels)}
    return lambda name: numbers.get(fold(name))


def report_on(told: Sequence[Prediction], labels: Sequence[str]) -> LabelReport:
    """Return accuracy, precision, recall and F1 of each label, and the confusion matrix.

    It counts usable images whose correct label is one of ``labels``.

    Raises:
        DataError: there is no such image.
    """
    number_of = label_numbers(labels)
    good, left_out = [], Counter[str]()
    for one in told:
        known = (one.truth or "").strip()
        if not one.labels:
            left_out["cannot be used"] += 1
        elif not known:
            left_out["have no correct label"] += 1
        elif (number := number_of(known)) is None:
            left_out[f"have the label {known!r}, which is not among the labels"] += 1
        else:
            good.append((number, one.labels))
    if not good:
        raise DataError(
            "no image has a correct label among the labels",
            "use the same spelling in `truth` and `labels`",
        )
    truth = np.array([right for right, _ in good], dtype=np.int64)
    ranked = np.array([ranks for _, ranks in good], dtype=np.int64)
    return replace(label_report(tuple(labels), truth, ranked), left_out=left_out)
