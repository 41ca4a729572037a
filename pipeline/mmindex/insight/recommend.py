"""Recommend images to a person, based on what the person liked and disliked before.

The vectors of the liked images are grouped into a few interests by spherical k-means, because the
mean of several interests can lie between them, where no liked image is (A. Pal et al., PinnerSage,
KDD 2020). Recent entries count more. Each interest searches the index, and the mean of the dislikes
is subtracted as in :mod:`mmindex.search.fusion`. The answers come from the interests in proportion
to their weights, and answers that resemble earlier ones come later (maximal marginal relevance,
J. Carbonell and J. Goldstein, SIGIR 1998). Images of the history, and near-duplicates of them and
of earlier answers, are left out. No model is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError, NoInputError, UsageError
from mmindex.core.modality import Modality
from mmindex.core.records import Hit
from mmindex.insight.history import Event, weigh
from mmindex.search.distinct import Scope
from mmindex.search.fusion import AWAY, fuse
from mmindex.search.hits import find_images, rows_by_key, shown_score
from mmindex.search.near import default_threshold, unit_rows
from mmindex.store.snapshot import Snapshot, positions

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_DEPTH: Final = 8  # candidates of each interest per wanted answer
_MOST_LIKES: Final = 10_000  # the heaviest likes that form interests: 40 MiB at 512 dimensions
_ROUNDS: Final = 25  # of k-means; a few suffice
_SAME: Final = 1e-9  # differences below this are rounding errors
_SEEN_ROWS: Final = 65_536  # of the history compared with the candidates at once


@dataclass(frozen=True, slots=True)
class Taste:
    """How a history is used.

    Attributes:
        half_life: days after which an entry counts half as much, if entries have times.
        interests: the largest number of interests.
        diversity: 0 for the most similar images, up to 1 for the most different ones.
    """

    half_life: float = 30.0
    interests: int = 3
    diversity: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.half_life < float("inf"):
            raise UsageError(f"`half_life` is {self.half_life}; it must be a positive number")
        if not 0 <= self.diversity <= 1:
            raise UsageError(f"`diversity` is {self.diversity}; it must be from 0 to 1")
        if not 1 <= self.interests <= 100:
            raise UsageError(f"`interests` is {self.interests}; it must be from 1 to 100")


@dataclass(frozen=True, slots=True)
class Used:
    """What was used of a history: numbers of images.

    Attributes:
        likes: with a positive weight.
        dislikes: with a negative weight.
        unknown: ids and uris that are not in the index.
        future: entries with a time in the future, which count as new.
    """

    likes: int
    dislikes: int
    unknown: int
    future: int


@dataclass(frozen=True, slots=True)
class _Known:
    """The images of a history: vector ids, int64 (n,), with their weights, float64 (n,)."""

    ids: Int64
    weights: Float64


def recommend(
    scope: Scope, events: Sequence[Event], taste: Taste, k: int, now: float
) -> tuple[tuple[Hit, ...], Used]:
    """Return the ``k`` best images for a history, fewer if there are no more.

    The score of a hit is its cosine similarity with the interest that found it, less the dislikes.

    Args:
        scope: the images to search.
        events: the history.
        taste: how it is used.
        k: the number of images.
        now: the time, in seconds since 1970.

    Raises:
        NoInputError: no image of the history is in the index.
        DataError: no weight is positive, or the store is damaged.
    """
    weighed = weigh(events, now, taste.half_life)
    known = _known(scope.snapshot, weighed.weights)
    likes, dislikes = known.weights > 0, known.weights < 0
    missing = len(weighed.weights) - len(known.ids)
    used = Used(int(likes.sum()), int(dislikes.sum()), missing, weighed.future)
    if not likes.any():
        raise DataError(
            f"the history has no likes: {used.dislikes:,} of its images have a negative weight",
            "add images with a positive weight",
        )
    seen = np.unique(known.ids)
    interests = _interests(scope.snapshot, known, taste.interests)
    best = _search(scope, seen, interests, k)
    threshold = default_threshold(scope.snapshot.encoder)
    chosen = _choose(best, interests.shares, k, taste.diversity, threshold)
    return _hits(scope, chosen), used


def _known(snapshot: Snapshot, weights: Mapping[str, float]) -> _Known:
    """Find the images of a history, and add up the weights of those with the same content."""
    names = set(weights)
    found = find_images(snapshot, "image_id", names)
    found |= find_images(snapshot, "uri", names - found.keys())
    if not found:
        raise NoInputError(
            f"none of the {len(names):,} images of the history is in the index, for example"
            f" {min(names)[:80]!r}",
            "use the ids or uris that `mmindex query --format json` shows",
        )
    by_key: dict[str, float] = {}
    for name, image in found.items():
        by_key[image.key] = by_key.get(image.key, 0.0) + weights[name]
    keys = pa.array(by_key, pa.string())
    ids = positions(keys, snapshot.keys(Modality.IMAGE), "images: a row has no vector")
    return _Known(ids, np.array(list(by_key.values())))


@dataclass(frozen=True, slots=True)
class _Interests:
    """Interests: query vectors, float32 (n, dim), unit length, and their shares, float64 (n,)."""

    queries: Float32
    shares: Float64


def _interests(snapshot: Snapshot, known: _Known, most: int) -> _Interests:
    vectors = snapshot.vectors(Modality.IMAGE)

    def heaviest(signed: Float64) -> tuple[Float64, Float64]:
        places = np.lexsort((known.ids, -signed))[:_MOST_LIKES]
        places = places[signed[places] > 0]
        return unit_rows(vectors.take(known.ids[places])), signed[places]

    centres, shares = interest_centres(*heaviest(known.weights), most)
    away, weights = heaviest(-known.weights)
    queries = [
        fuse(
            np.concatenate([centre[None], away]).astype(np.float32),
            (1.0, *(-AWAY * weights / weights.sum())) if len(weights) else (1.0,),
        )
        for centre in centres
    ]
    return _Interests(np.stack(queries), shares)


def interest_centres(units: Float64, weights: Float64, most: int) -> tuple[Float64, Float64]:
    """Group vectors by weighted spherical k-means.

    The first centre starts at the heaviest vector, each other one at the vector with the largest
    weight times distance to the centres so far, so the result does not depend on chance.

    Args:
        units: float64 (n, dim), unit length, n >= 1.
        weights: float64 (n,), positive.
        most: the largest number of groups.

    Returns:
        the centres, float64 (groups, dim), unit length, and the share of the weights of each group,
        float64 (groups,), in descending order.
    """
    starts = [int(weights.argmax())]
    far = 1 - units @ units[starts[0]]
    while len(starts) < min(most, len(units)) and (weights * far).max() > _SAME:
        starts.append(int((weights * far).argmax()))
        far = np.minimum(far, 1 - units @ units[starts[-1]])
    centres = units[starts]
    groups = np.full(len(units), -1)
    for _ in range(_ROUNDS):
        nearest = (units @ centres.T).argmax(axis=1)
        if (nearest == groups).all():
            break
        groups = nearest
        sums = np.stack([weights[groups == g] @ units[groups == g] for g in range(len(centres))])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > _SAME, sums / np.maximum(lengths, _SAME), centres)
    shares = np.bincount(groups, weights, len(centres)) / weights.sum()
    order = np.argsort(-shares, kind="stable")
    order = order[shares[order] > 0]
    return centres[order], shares[order]


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Images to choose from.

    Attributes:
        ids: int64 (n,).
        units: float64 (n, dim), unit length.
        scores: float64 (n, interests), cosine similarities.
    """

    ids: Int64
    units: Float64
    scores: Float64


def _search(scope: Scope, seen: Int64, interests: _Interests, k: int) -> _Candidates:
    """Return the best images of each interest that are not in the history, nor copies of it."""
    allowed = np.arange(scope.searcher.rows) if scope.ids is None else scope.ids
    allowed = np.setdiff1d(allowed, seen, assume_unique=True)
    ids = np.empty(0, np.int64)
    if len(allowed):
        depth = min(_DEPTH * k, len(allowed))
        _, found = scope.searcher.search(interests.queries, depth, allowed)
        ids = np.unique(found[found >= 0])
    vectors = scope.snapshot.vectors(Modality.IMAGE)
    units = unit_rows(vectors.take(ids))
    new = np.ones(len(ids), dtype=np.bool_)
    threshold = default_threshold(scope.snapshot.encoder)
    for start in range(0, len(seen), _SEEN_ROWS):
        part = unit_rows(vectors.take(seen[start : start + _SEEN_ROWS]))
        new &= (units @ part.T < threshold).all(axis=1)
    units = units[new]
    return _Candidates(ids[new], units, units @ interests.queries.T.astype(np.float64))


def _choose(
    best: _Candidates, shares: Float64, k: int, diversity: float, threshold: float
) -> list[tuple[int, float]]:
    """Return the ids and scores of the answers, best first."""
    chosen: list[tuple[int, float]] = []
    taken = np.zeros(len(shares))
    near = np.zeros(len(best.ids))  # the largest similarity with an answer
    free = np.ones(len(best.ids), dtype=np.bool_)
    while len(chosen) < k and free.any():
        interest = int((shares / (taken + 1)).argmax())  # D'Hondt's rule
        value = (1 - diversity) * best.scores[:, interest] - diversity * near
        place = int(np.where(free, value, -np.inf).argmax())
        taken[interest] += 1
        chosen.append((int(best.ids[place]), float(best.scores[place, interest])))
        similar = best.units @ best.units[place]
        near = np.maximum(near, similar)
        free &= similar < threshold
        free[place] = False
    return chosen


def _hits(scope: Scope, chosen: Sequence[tuple[int, float]]) -> tuple[Hit, ...]:
    keys = scope.searcher.keys([number for number, _ in chosen])
    named = rows_by_key(scope.snapshot, Modality.IMAGE, set(keys), scope.rows)
    found = []
    for rank, (key, (_, score)) in enumerate(zip(keys, chosen, strict=True), start=1):
        row = named[key][0]
        shown = shown_score(score, cosine=True)
        found.append(Hit(rank, shown, row.id, row.uri, row.caption, row.image_id))
    return tuple(found)
