"""Rules for searches by words."""

from __future__ import annotations

from mmindex.core.errors import UsageError
from mmindex.core.modality import Modality
from mmindex.core.progress import get_logger
from mmindex.keywords.index import KeywordIndex, query_words
from mmindex.search.hits import Limit
from mmindex.search.rank import By


def check_words(by: By, to: Modality, limit: Limit) -> None:
    """Check the side and the limits of a search by words.

    Raises:
        UsageError: it is for captions, or has a limit that needs vectors.
    """
    if limit.good:
        raise UsageError(
            "`good` works only with vectors, but this query also uses words",
            "remove `good`, or search without `keywords` and `hybrid`",
        )
    if to is not Modality.IMAGE:
        raise UsageError(
            "words find images, but this query searches captions",
            "remove `to=text`, or search without `keywords` and `hybrid`",
        )
    if by == "words" and limit.min_score is not None:
        raise UsageError(
            "`min_score` is a cosine similarity, which a search by keywords does not have",
            "remove `min_score`, or use a hybrid search",
        )


def words_help(keywords: KeywordIndex) -> bool:
    """Return whether words make the answers of this store better, see :mod:`.fit_hybrid`."""
    if keywords.weights.none:
        get_logger("search").warning(
            "words make the answers of this store worse (see docs/keywords.md): using only the "
            "vector"
        )
    return not keywords.weights.none


def words_beside_vector(text: str) -> list[str]:
    """Return the words of a hybrid query; without words, its vector alone counts."""
    words = query_words(text)
    if not words:
        get_logger("search").warning("the query has no words: using only its vector")
    return words
