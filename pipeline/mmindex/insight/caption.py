"""Describe a picture with the captions of the corpus that are nearest to it.

Among the nearest captions the description is the one that most of the others agree with: the mean
of its cosine similarities with them, as texts, is the largest ("consensus", J. Devlin et al.,
Exploring Nearest Neighbor Approaches for Image Captioning, 2015). One caption that happens to lie
near but tells something else loses against several that say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from mmindex.records import Hit, Modality
from mmindex.search.hits import Cut, Ranked, hits
from mmindex.search.searcher import Searcher
from mmindex.search.vectorize import Vectorizer
from mmindex.store.vectors import Vectors

# How many captions have a say.
DEFAULT_VOTERS: Final = 60


@dataclass(frozen=True, slots=True)
class Described:
    """A picture with its captions.

    Attributes:
        picture: where it is.
        captions: the description first; scores are cosine similarities with the picture.
        agreement: of each caption, its mean cosine similarity with the other voters.
    """

    picture: str
    captions: tuple[Hit, ...]
    agreement: tuple[float, ...]


def describe(
    vectorizer: Vectorizer, image: str, k: int = 1, voters: int = DEFAULT_VOTERS
) -> Described:
    """Find captions for a picture: a file, or the uri or id of an image of the corpus.

    Args:
        vectorizer: of the version.
        image: the picture.
        k: captions wanted, best first; the same text is given once.
        voters: nearest captions that have a say, at least ``k`` of them; 1 with ``k`` 1 gives the
            nearest caption as it is.

    Raises:
        NoInputError: there is no such picture, or the corpus has no captions.
        DataError: the picture cannot be decoded.
        ModelMismatchError: the model is no longer the one that made the index.
    """
    published = vectorizer.published
    published.require_index(Modality.TEXT)
    asked = vectorizer.picture(image)
    searcher = Searcher(published.objects, published.manifest, Modality.TEXT)
    scores, found = searcher.search(asked.vector[None], min(max(k, voters), searcher.n))
    ids, near = found[0][found[0] >= 0], scores[0][found[0] >= 0]
    vectors = Vectors(published.objects, published.manifest, Modality.TEXT)
    texts = vectors.take(ids).astype(np.float64)
    alike = texts @ texts.T
    others = max(1, len(ids) - 1)
    agreement = (alike.sum(axis=1) - alike.diagonal()) / others
    # Of equal ones the nearer to the picture; ids come nearest first.
    order = np.argsort(-agreement, kind="stable")[:k]
    ranked = [Ranked([key], [float(near[n])]) for n, key in zip(
        order.tolist(), searcher.keys(ids[order]), strict=True)]  # fmt: skip
    named = hits(published.objects, published.manifest, Modality.TEXT, ranked, Cut(k=1))
    return Described(
        picture=asked.uri,
        captions=tuple(_ranked(named)),
        agreement=tuple(agreement[order].tolist()),
    )


def _ranked(named: list[tuple[Hit, ...]]) -> list[Hit]:
    """One caption row for each text, numbered anew."""
    return [
        Hit(rank, hit.score, hit.id, hit.uri, hit.caption, hit.image_id)
        for rank, (hit, *_) in enumerate(named, start=1)
    ]
