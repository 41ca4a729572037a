"""Describe an image with the nearest captions of the corpus.

With ``voters``, the nearest captions are ordered by agreement: first the one with the highest mean
cosine similarity to the other voters
("consensus", J. Devlin et al., Exploring Nearest Neighbor Approaches for Image Captioning, 2015).
A single caption that is near by chance is then ranked below several that agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmindex.core.modality import Modality
from mmindex.core.records import Hit
from mmindex.search.hits import Limit, Ranked, hits
from mmindex.search.searcher import Searcher
from mmindex.search.vectorize import Vectorizer


@dataclass(frozen=True, slots=True)
class Described:
    """An image with its captions.

    Attributes:
        image: the location of the image.
        captions: the captions, best first, each text once; scores are cosine similarities with the
            image.
        agreement: for each caption, its mean cosine similarity with the other voters.
    """

    image: str
    captions: tuple[Hit, ...]
    agreement: tuple[float, ...]


def describe(
    vectorizer: Vectorizer, image: str, k: int = 1, voters: int | None = None
) -> Described:
    """Find captions for an image: a file, or the uri or id of an image of the corpus.

    Args:
        vectorizer: the vectorizer of the version.
        image: the image.
        k: the number of captions.
        voters: the number of nearest captions that are ordered by agreement (at least ``k``); None:
            order by similarity.

    Raises:
        NoInputError: there is no such image, or the corpus has no captions.
        DataError: the image cannot be decoded.
        ModelMismatchError: the model is no longer the model of the index.
    """
    snapshot = vectorizer.snapshot
    searcher = Searcher(snapshot, Modality.TEXT)
    asked = vectorizer.named_image(image)
    scores, found = searcher.search(asked.vector[None], min(max(k, voters or 1), searcher.n))
    ids, near = found[0][found[0] >= 0], scores[0][found[0] >= 0]
    texts = snapshot.vectors(Modality.TEXT).take(ids).astype(np.float64)
    alike = texts @ texts.T
    others = max(1, len(ids) - 1)
    agreement = (alike.sum(axis=1) - alike.diagonal()) / others
    # Ids are sorted by distance, so of equal ones the nearer to the image comes first.
    order = np.arange(len(ids)) if voters is None else np.argsort(-agreement, kind="stable")
    order = order[:k]
    ranked = [Ranked([key], [min(float(near[n]), 1.0)]) for n, key in zip(
        order.tolist(), searcher.keys(ids[order]), strict=True)]  # fmt: skip
    named = hits(snapshot, Modality.TEXT, ranked, Limit(k=1))
    return Described(
        image=asked.uri,
        captions=tuple(_ranked(named)),
        agreement=tuple(agreement[order].tolist()),
    )


def _ranked(named: list[tuple[Hit, ...]]) -> list[Hit]:
    """Return one caption row per text, with new ranks."""
    return [
        Hit(rank, hit.score, hit.id, hit.uri, hit.caption, hit.image_id)
        for rank, (hit, *_) in enumerate(named, start=1)
    ]
