"""The probability that a hit is right, and which hits are weak.

Which cosine similarities are high differs between models, corpora and queries. The evaluation stage
fits a few numbers to the captions of the corpus (:mod:`mmindex.evaluate.fit`), and this module
applies them. With the best scores ``s_1 >= s_2 >= ...`` of a query,

    share_i = exp(s_i / T) / sum_j exp(s_j / T)
    probability_i = sigmoid(a + b s_1) * sigmoid(c + d logit(share_i))

The first factor is the probability that the corpus has an answer to the query. The second one is
the probability that this hit is the answer if there is one: equally near hits share it. Both are
logistic calibrations of a score (J. C. Platt, Probabilistic Outputs for Support Vector Machines,
1999); ``T`` is a temperature (C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017).

All hits of a query are weak if ``s_1`` is as low as the best scores of queries without an answer.
Otherwise, a hit is weak if its own score is as low, and farther below ``s_1`` than those of right
answers. A hit can have a low probability without being weak: if a hundred images fit a text, each
has a probability of 1 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.modality import Modality
from mmindex.core.records import Hit
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot

CALIBRATION: Final = "calibration"
"""The name of the object in a version."""
CONTEXT: Final = 50
"""The number of best scores that a probability depends on."""
_MOST_LOGIT: Final = 12.0  # beyond it, a share is 0 or 1 in float32

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration of one direction.

    Attributes:
        asked, to: the sides of the queries and of the hits.
        temperature: ``T`` above.
        answered: ``(a, b)`` above.
        chosen: ``(c, d)`` above.
        best: the hits of a query are weak if its best score is lower.
        gap: a hit with a score below ``best`` is weak if it is farther below the best score.
        flat: for comparison, a threshold on scores that loses as many right answers.
        queries, images: how many queries and images it was fitted to.
    """

    asked: Modality
    to: Modality
    temperature: float
    answered: tuple[float, float]
    chosen: tuple[float, float]
    best: float
    gap: float
    flat: float
    queries: int
    images: int

    def probabilities(self, scores: Float64, context: Float64) -> Float64:
        """Return the probability of each hit: float64 (q, k), 0 where there is no hit.

        Args:
            scores: float64 (q, k), the hits; -inf for no hit.
            context: float64 (q, m), the best scores of each query, descending; -inf beyond the end.
        """
        odds = share_logits(_finite(scores), context, self.temperature)
        answered = _sigmoid(self.answered, _finite(context[:, :1]))
        return np.where(np.isfinite(scores), answered * _sigmoid(self.chosen, odds), 0.0)

    def weak(self, scores: Float64, context: Float64) -> Bools:
        """Return which hits are weak: bool (q, k); arguments as for :meth:`probabilities`."""
        best = context[:, :1]
        return (best < self.best) | ((scores < self.best) & (scores < best - self.gap))

    def judge(self, hits: Sequence[Hit], context: Float64) -> tuple[Hit, ...]:
        """Return the hits of one query with their probabilities.

        Args:
            hits: the hits.
            context: float64 (m,), the best scores of the query, descending; -inf beyond the end.
        """
        if not hits:
            return ()
        scores = np.array([[hit.score for hit in hits]], dtype=np.float64)
        several = context[None]
        probabilities = self.probabilities(scores, several)[0].tolist()
        weak = self.weak(scores, several)[0].tolist()
        return tuple(
            replace(hit, probability=one, weak=poor)
            for hit, one, poor in zip(hits, probabilities, weak, strict=True)
        )


def share_logits(scores: Float64, context: Float64, temperature: float) -> Float64:
    """Return the logit of each score's share of the context: float64 (q, k)."""
    high = _finite(context[:, :1])
    total = np.exp((context - high) / temperature).sum(axis=1, keepdims=True)
    log_share = (scores - high) / temperature - np.log(np.maximum(total, 1e-300))
    share = np.exp(np.minimum(log_share, 0.0))
    logits = np.minimum(log_share, 0.0) - np.log1p(-np.minimum(share, 1 - 1e-9))
    clipped: Float64 = np.clip(logits, -_MOST_LOGIT, _MOST_LOGIT)
    return clipped


def _finite(scores: Float64) -> Float64:
    found: Float64 = np.where(np.isfinite(scores), scores, 0.0)
    return found


def _sigmoid(line: tuple[float, float], x: Float64) -> Float64:
    # exp() of more than 700 is an overflow; beyond 30, the result is 0 or 1.
    found: Float64 = 1.0 / (1.0 + np.exp(-np.clip(line[0] + line[1] * x, -30.0, 30.0)))
    return found


_SCHEMA: Final = pa.schema(
    {
        "asked": pa.string(),
        "to": pa.string(),
        "temperature": pa.float64(),
        "answered": pa.list_(pa.float64()),
        "chosen": pa.list_(pa.float64()),
        "best": pa.float64(),
        "gap": pa.float64(),
        "flat": pa.float64(),
        "queries": pa.int64(),
        "images": pa.int64(),
    }
)


def write_calibrations(objects: Objects, found: Sequence[Calibration]) -> ObjectRef:
    """Write the calibrations of a version, one row for each direction."""
    rows = [asdict(one) for one in found]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    return objects.write_table(CALIBRATION, _SCHEMA, [table])


def read_calibrations(snapshot: Snapshot) -> tuple[Calibration, ...]:
    """Return the calibrations of a version; empty if it has none.

    Raises:
        DataError: the object is missing or damaged.
    """
    if snapshot.manifest.find(CALIBRATION) is None:
        return ()
    names = [field.name for field in fields(Calibration)]
    table = snapshot.table(CALIBRATION, names)
    return tuple(
        Calibration(
            **{
                **row,
                "asked": Modality(row["asked"]),
                "to": Modality(row["to"]),
                "answered": tuple(row["answered"]),
                "chosen": tuple(row["chosen"]),
            }
        )
        for row in table.to_pylist()
    )
