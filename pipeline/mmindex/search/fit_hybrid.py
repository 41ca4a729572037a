"""Fit the weights of a hybrid search on captions of the corpus.

A caption is the query, and the document of its image is scored as if the image did not have this
caption. Words count only if that makes more of these queries find their image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.index.train import sample_rows
from mmindex.keywords.best import Matches, ranked
from mmindex.keywords.documents import Document, Documents, count_words
from mmindex.keywords.index import KeywordIndex, query_words
from mmindex.keywords.summary import Weights
from mmindex.search.rank import LEAST_DEPTH, fuse
from mmindex.search.searcher import Searcher
from mmindex.store.objects import contents
from mmindex.store.snapshot import Snapshot

QUERIES: Final = 1_000
"""Captions to fit on: the share of found images is then known to some 1.5 points."""
_PARTIAL: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_OFF: Final = Weights(0.0, 0.0)
_COMPLETE_ONLY: Final = Weights(0.0, 1.0)
_CANDIDATES: Final = (
    _OFF,
    _COMPLETE_ONLY,
    *(Weights(partial, max(1.0, partial)) for partial in _PARTIAL),
)
# How far a gain must exceed its standard error: chance alone reaches this in one case of forty.
_CERTAINTY: Final = 2.0
_AT: Final = (1, 10)

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Query:
    """A caption, the ids of its images, and the ids that are nearest to its vector."""

    text: str
    owners: Int64
    near: Int64


def fit_weights(
    snapshot: Snapshot, keywords: KeywordIndex, documents: Documents, seed: int
) -> Weights:
    """Return the weights for the keyword index of a version.

    Without captions, only images with all words of a query count.

    Args:
        snapshot: the version, with its indexes.
        keywords: its keyword index.
        documents: its documents.
        seed: of the sample of captions.
    """
    found = np.array([
        [_found(query, matches, weights) for weights in _CANDIDATES]
        for query, matches in _held_out(snapshot, keywords, documents, seed)
    ], dtype=np.float64)  # fmt: skip
    if not len(found):
        return _COMPLETE_ONLY
    return _choose(found)


def _choose(found: Float64) -> Weights:
    """Choose from what each query found: (queries, candidates, cut-offs), 0 or 1."""
    gains = found - found[:, :1]
    means = gains.mean(axis=2)
    gain = means.mean(axis=0)
    error = means.std(axis=0) / np.sqrt(len(means))
    fine = (gain > _CERTAINTY * error) & (gains.mean(axis=0) >= 0).all(axis=1)
    fine[:2] = False
    if fine.any():
        chosen = _CANDIDATES[int(np.argmax(np.where(fine, gain, -np.inf)))]
    else:
        chosen = _COMPLETE_ONLY if gain[1] >= -error[1] else _OFF
    return Weights(chosen.partial, chosen.complete, len(found))


def _found(query: _Query, matches: Matches, weights: Weights) -> list[bool]:
    places = np.flatnonzero(np.isin(fuse(query.near, matches, weights), query.owners))
    return [len(places) > 0 and bool(places[0] < k) for k in _AT]


def _held_out(
    snapshot: Snapshot, keywords: KeywordIndex, documents: Documents, seed: int
) -> Iterator[tuple[_Query, Matches]]:
    """Yield queries with their matches, as if no image had the caption of the query."""
    queries = _queries(snapshot, documents, seed)
    wanted = np.unique(np.concatenate([np.empty(0, np.int64), *(one.owners for one in queries)]))
    texts = documents.among(wanted)
    for query in queries:
        words = query_words(query.text)
        rarities = keywords.rarities(words)
        tallies = [_without(texts[owner], query.text) for owner in query.owners.tolist()]
        found = keywords.best(words, LEAST_DEPTH + len(tallies))
        kept = ~np.isin(found.ids, query.owners)
        scores = np.array([keywords.score_of(one, rarities) for one in tallies], np.float32)
        every = np.array([all(one[word] for word in words) for one in tallies], np.bool_)
        yield (
            query,
            ranked(
                np.concatenate([found.ids[kept], query.owners[scores > 0]]),
                np.concatenate([found.scores[kept], scores[scores > 0]]),
                np.concatenate(
                    [(np.arange(len(found.ids)) < found.complete)[kept], every[scores > 0]]
                ),
                LEAST_DEPTH,
            ),
        )


def _queries(snapshot: Snapshot, documents: Documents, seed: int) -> list[_Query]:
    if Modality.TEXT not in snapshot.manifest.indexes:
        return []
    vectors = snapshot.vectors(Modality.TEXT)
    live = vectors.live_ids()
    ids = live[sample_rows(len(live), QUERIES, seed)]
    of_rows = snapshot.row_ids(Modality.TEXT)
    rows = np.flatnonzero(np.isin(of_rows, ids))
    texts = snapshot.take("captions", ["text"], rows)["text"]
    owners: dict[int, set[int]] = {}
    text_of: dict[int, str] = {}
    for row, text in zip(rows.tolist(), contents(texts), strict=True):
        owners.setdefault(int(of_rows[row]), set()).add(int(documents.captioned()[row]))
        text_of[int(of_rows[row])] = text
    queries = vectors.take(ids).astype(np.float32)
    _, near = Searcher(snapshot, Modality.IMAGE).search(queries, LEAST_DEPTH)
    return [
        _Query(text_of[one], np.array(sorted(owners[one]), np.int64), found[found >= 0])
        for one, found in zip(ids.tolist(), near, strict=True)
    ]


def _without(document: Document, caption: str) -> Counter[str]:
    """Count the words of an image that are not from a caption.

    Names and metadata that repeat the caption are left out too, because captions are often made
    from them.
    """
    held = set(query_words(caption))
    about = [one for one in document.about if not _repeats(one, held)]
    captions = [one for one in document.captions if one != caption]
    return count_words(Document(about, captions).text)


def _repeats(text: str, held: set[str]) -> bool:
    mine = set(query_words(text))
    return bool(mine) and (len(mine & held) * 2 >= len(mine) or held <= mine)
