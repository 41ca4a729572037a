"""Check whether a text describes an image.

The score is the cosine similarity. The threshold of a match depends on the model and the corpus, so
it is fitted to the corpus: a seeded sample of captions is paired with their own images and with
random other images, and the threshold has the best balanced accuracy
(:func:`mmindex.insight.metrics.fit_threshold`). A caption that also describes the other image ("a
dog") counts as unmatched, so the accuracy is then below 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import MmindexError, NoInputError
from mmindex.evaluate.corpus import Corpus, load_corpus, sample
from mmindex.insight.metrics import PairReport, Threshold, fit_threshold, pair_report
from mmindex.insight.pairs import Pair
from mmindex.search.vectorize import Asked, Vectorizer
from mmindex.store.snapshot import Snapshot

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Enough to determine the shares behind the threshold to about 0.7 points (one standard error).
FIT_PAIRS: Final = 5_000
# Texts per batch.
_BATCH: Final = 1_024


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A pair with its cosine similarity, or with an error."""

    pair: Pair
    score: float | None
    error: str | None = None


def corpus_threshold(snapshot: Snapshot, seed: int = 0, pairs: int = FIT_PAIRS) -> Threshold:
    """Fit the threshold to the pairs in the corpus.

    Args:
        snapshot: the version; its stored vectors are used, and no model is loaded.
        seed: the seed of the sample.
        pairs: the largest number of captions in the sample.

    Raises:
        NoInputError: the corpus has no captions, or too few images for unmatched pairs.
    """
    manifest = snapshot.manifest
    corpus = load_corpus(snapshot)
    if corpus.captions is None:
        raise NoInputError(
            f"version {manifest.version} has no captions for fitting a threshold",
            "set `threshold`, or build from a source with captions",
        )
    rows = sample(len(corpus.image_of_caption), pairs, seed)
    own = corpus.image_of_caption[rows]
    captions = corpus.captions.id_of_row[rows]
    matched = _scores(corpus, captions, corpus.images.id_of_row[own])
    others, kept = _other_images(corpus, rows, seed)
    unmatched = _scores(corpus, captions[kept], others)
    if not len(unmatched):
        raise NoInputError(
            f"version {manifest.version}: every caption belongs to every image,"
            " so there are no unmatched pairs for fitting a threshold",
            "set `threshold`",
        )
    return fit_threshold(matched, unmatched)


def _other_images(corpus: Corpus, rows: Int64, seed: int) -> tuple[Int64, NDArray[np.bool_]]:
    """Return a random image id for each caption, and which of them are not its own images."""
    if corpus.captions is None:
        return rows[:0], np.zeros(len(rows), dtype=bool)
    images = corpus.images.id_of_row
    drawn = images[np.random.default_rng(seed).integers(len(images), size=len(rows))]
    # Several images can have the same text, and an image can have several names.
    said, count = corpus.captions.id_of_row, int(images.max(initial=0)) + 1
    together = said * count + images[corpus.image_of_caption]
    kept = ~np.isin(said[rows] * count + drawn, together)
    return drawn[kept], kept


def _scores(corpus: Corpus, captions: Int64, images: Int64) -> Float64:
    """Return the cosine similarities of stored vectors, row by row: float64 (n,)."""
    if corpus.captions is None or not len(captions):
        return np.empty(0)
    texts = corpus.captions.vectors.take(captions).astype(np.float64)
    vectors = corpus.images.vectors.take(images).astype(np.float64)
    scores: Float64 = np.einsum("nd,nd->n", texts, vectors)
    return scores


def score_pair(vectorizer: Vectorizer, image: str, text: str) -> float:
    """Return the cosine similarity of an image (file, uri or id) and a text.

    Raises:
        UsageError: the text is empty.
        NoInputError: there is no such image.
        DataError: the image cannot be decoded.
        ModelMismatchError: the model is no longer the one that made the index.
    """
    vector = vectorizer.named_image(image).vector
    return float(vector @ vectorizer.text(text))


def score_pairs(vectorizer: Vectorizer, pairs: Sequence[Pair]) -> tuple[ScoredPair, ...]:
    """Score many pairs; each image and each text is encoded once.

    Pairs with an unusable image or an empty text have an error; the run continues.

    Raises:
        ModelMismatchError: the model is no longer the one that made the index.
    """
    names = list(dict.fromkeys(pair.image for pair in pairs))
    images: dict[str, Asked | MmindexError] = dict(
        zip(names, vectorizer.named_images(names), strict=True)
    )
    texts = list(dict.fromkeys(pair.text for pair in pairs))
    places = {text: place for place, text in enumerate(texts)}
    parts = [
        vectorizer.texts(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)
    ]
    vectors = np.concatenate(parts) if parts else np.empty((0, 1), dtype=np.float32)
    scored = []
    for pair in pairs:
        image = images[pair.image]
        if isinstance(image, MmindexError):
            scored.append(ScoredPair(pair, None, image.message))
        elif not pair.text.strip():
            scored.append(ScoredPair(pair, None, "the text is empty"))
        else:
            scored.append(ScoredPair(pair, float(image.vector @ vectors[places[pair.text]])))
    return tuple(scored)


def judge(scored: Sequence[ScoredPair], threshold: float) -> PairReport:
    """Return accuracy, precision, recall, F1 and ROC AUC for the pairs with a score.

    Raises:
        DataError: there are no such pairs.
    """
    good = [(one.pair.label, one.score) for one in scored if one.score is not None]
    labels = np.array([label for label, _ in good], dtype=bool)
    scores = np.array([score for _, score in good], dtype=np.float64)
    return pair_report(labels, scores, threshold)
