"""One query with its hits."""

from __future__ import annotations

from dataclasses import dataclass

from mmindex.core.modality import Modality
from mmindex.core.records import Hit


@dataclass(frozen=True, slots=True)
class Answer:
    """One query with its hits.

    Attributes:
        query: the text, or the name of the image.
        to: the side that was searched.
        version: the version of the store.
        hits: best first.
        image: the location of the query image; None for a text.
        error: why the query failed; ``hits`` is then empty.
        cosine: whether scores are cosine similarities; otherwise they are BM25.
    """

    query: str
    to: Modality
    version: int
    hits: tuple[Hit, ...] = ()
    image: str | None = None
    error: str | None = None
    cosine: bool = True
