"""Zero-shot classification: the label whose vector is nearest to the picture's.

A picture ``x`` gets label ``i`` with the probability ``softmax(s cos(x, t_i))`` over the labels
given, where ``s`` is the model's own learnt logit scale (CLIP, section 2.3 and figure 3). So the
probabilities say which of *these* labels fits best, not whether any of them fits.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.core.errors import DataError, MmindexError, NoInputError, UsageError
from mmindex.core.modality import Modality
from mmindex.insight.metrics import LabelReport, label_report
from mmindex.models.encoder import Encoder
from mmindex.search.snapshot import Published
from mmindex.search.vectorize import Vectorizer
from mmindex.store.vectors import Vectors

if TYPE_CHECKING:
    from mmindex.search.filters import Rows

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Rows of the images table classified together: 8,192 x 512 float32 are 16 MiB.
_BATCH: Final = 8_192


@runtime_checkable
class HasLogitScale(Protocol):
    """An encoder that knows how sharply its model tells texts apart."""

    @property
    def logit_scale(self) -> float:
        """What cosine similarities are multiplied with before a softmax."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """Labels ready to be told.

    Attributes:
        labels: their names.
        vectors: float32 (labels, dim), unit length.
        scale: the model's logit scale.
    """

    labels: tuple[str, ...]
    vectors: Float32
    scale: float

    def rank(self, pictures: Float32, k: int) -> tuple[Int64, Float64]:
        """The k best labels of float32 (n, dim) pictures: int64 and float64 (n, k).

        The numbers of the labels, best first (of equal ones the first in the list), and their
        probabilities over all labels.
        """
        logits = self.scale * (pictures.astype(np.float64) @ self.vectors.T.astype(np.float64))
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        shares /= shares.sum(axis=1, keepdims=True)
        order = np.argsort(-shares, axis=1, kind="stable")[:, :k].astype(np.int64)
        return order, np.take_along_axis(shares, order, axis=1)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a picture was told to be.

    Attributes:
        id: the image's id in the corpus, or what the user called the file.
        labels: numbers of the best labels, best first; none where there is an error.
        shares: their probabilities.
        truth: the right label's name, where it is known.
        error: why the picture could not be used.
        uri: where the picture is, absolute where that is a file.
    """

    id: str
    labels: tuple[int, ...]
    shares: tuple[float, ...]
    truth: str | None = None
    error: str | None = None
    uri: str = ""


def logit_scale(encoder: Encoder) -> float:
    """The model's logit scale.

    Raises:
        UsageError: the model has none.
    """
    if not isinstance(encoder, HasLogitScale):
        raise UsageError(
            f"the model {encoder.info.model!r} has no logit scale for probabilities",
            "give one with --scale (CLIP's is 100)",
        )
    return encoder.logit_scale


def classify_files(
    vectorizer: Vectorizer, classifier: Classifier, wheres: Sequence[str], k: int
) -> Iterator[Prediction]:
    """Tell pictures (files, uris or ids), in order; one that cannot be used says why."""
    for where, found in zip(wheres, vectorizer.pictures(wheres), strict=True):
        if isinstance(found, MmindexError):
            yield Prediction(where, (), (), error=found.message)
            continue
        order, shares = classifier.rank(found.vector[None], k)
        told = tuple(order[0].tolist()), tuple(shares[0].tolist())
        yield Prediction(where, *told, uri=_absolute(found.uri))


def classify_corpus(
    published: Published, classifier: Classifier, k: int, *, truth: str | None, rows: Rows | None
) -> Iterator[Prediction]:
    """Tell every image of the corpus from its stored vector, in the table's order.

    Args:
        published: the version.
        classifier: the labels.
        k: labels for each image.
        truth: the column of the images table that holds the right label; None: unknown.
        rows: bool (images,): only these; None: all.

    Raises:
        UsageError: there is no such column; the message names those that are.
        NoInputError: the version has no images.
    """
    published.require_index(Modality.IMAGE)
    objects, manifest = published.objects, published.manifest
    table, ids = manifest.find("images"), manifest.find(f"ids/{Modality.IMAGE}")
    if table is None or ids is None:
        raise NoInputError(f"version {manifest.version} has no images", "run `mmindex build`")
    known = objects.read_table(ids, ["key"])["key"]
    vectors = Vectors(objects, manifest, Modality.IMAGE)
    with objects.open_parquet(table) as file:
        names = file.schema_arrow.names
    if truth is not None and truth not in names:
        raise UsageError(f"--truth {truth}: no such column", f"columns: {', '.join(names)}")
    columns = ["image_id", "key", "uri", *([truth] if truth is not None else [])]
    first = 0
    for batch in objects.iter_batches(table, columns, _BATCH):
        part = pa.Table.from_batches([batch])
        if rows is not None:
            part = part.filter(pa.array(rows[first : first + batch.num_rows]))
        first += batch.num_rows
        yield from _told(part, known, vectors, classifier, k, truth)


def _told(
    part: pa.Table, known: Any, vectors: Vectors, classifier: Classifier, k: int, truth: str | None
) -> Iterator[Prediction]:
    places = pc.index_in(part["key"].combine_chunks(), value_set=known)
    if places.null_count:
        raise DataError("images: a row has no vector", "run `mmindex check --full`")
    pictures = vectors.take(places.to_numpy().astype(np.int64)).astype(np.float32)
    order, shares = classifier.rank(pictures, k)
    names, uris = _texts(part["image_id"]), _texts(part["uri"])
    right = _texts(part[truth]) if truth is not None else [None] * len(names)
    ranked = zip(order.tolist(), shares.tolist(), strict=True)
    for name, uri, (best, chances), label in zip(names, uris, ranked, right, strict=True):
        yield Prediction(name or "", tuple(best), tuple(chances), label, uri=uri or "")


def _texts(column: Any) -> list[str | None]:
    """Values as text; half surrogates, which are no UTF-8, are kept."""
    if not pa.types.is_string(column.type):
        return [None if value is None else str(value) for value in column.to_pylist()]
    data = column.cast(pa.binary()).to_pylist()
    return [None if one is None else one.decode("utf-8", "surrogatepass") for one in data]


def _absolute(uri: str) -> str:
    return uri if "://" in uri else os.path.abspath(uri)  # noqa: PTH100 # may be in an archive


def report_on(told: Sequence[Prediction], labels: Sequence[str]) -> LabelReport:
    """Accuracy, each label's precision, recall and F1, and the confusion matrix.

    Counts pictures that could be used and whose right label is one of ``labels``.

    Raises:
        DataError: there is no such picture.
    """
    # Letter case is ignored where that leaves the labels apart.
    fold = str.casefold if len(set(map(str.casefold, labels))) == len(labels) else str
    numbers = {fold(label): number for number, label in enumerate(labels)}
    good, left_out = [], Counter[str]()
    for one in told:
        known = (one.truth or "").strip()
        if not one.labels:
            left_out["could not be used"] += 1
        elif not known:
            left_out["have no correct label"] += 1
        elif fold(known) not in numbers:
            left_out[f"have the label {known!r}, which --labels lacks"] += 1
        else:
            good.append((numbers[fold(known)], one.labels))
    if not good:
        raise DataError(
            "no image has a correct label among the labels",
            "the labels of --truth and --labels must be spelled the same",
        )
    truth = np.array([right for right, _ in good], dtype=np.int64)
    ranked = np.array([ranks for _, ranks in good], dtype=np.int64)
    return replace(label_report(tuple(labels), truth, ranked), left_out=left_out)
