"""Compare a changed corpus with the index of one side, and decide what to do.

This module has no side effects; :mod:`mmindex.index.extend` applies the decisions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmindex.core.config import IndexConfig
from mmindex.index.plan import IndexPlan, candidates, with_lists
from mmindex.store.keys import column_keys, distinct, places_of
from mmindex.store.manifest import IndexInfo

Int64 = NDArray[np.int64]

# Exact search trains nothing, but removed rows cost disk space and time. Above this share of all
# rows, they are dropped.
EXACT_DEAD_SHARE = 0.1
# The number of lists depends on the number of vectors: four times as many need twice the lists.
MOST_GROWTH = 4
# Settings that do not affect the recipe of an index: they depend on the machine, determine when to
# train again, or are for the keyword index.
NOT_IN_RECIPE = {"threads", "gpu", "retrain_at", "fill_processes", "keywords"}


@dataclass(frozen=True, slots=True)
class Change:
    """The difference between the ids of the last version and the current keys.

    Attributes:
        ids: the keys of the last version by id, null if removed.
        gone: int64, ids of keys that no longer exist, ascending.
        fresh: keys without an id, in the order of the current keys.
    """

    ids: pa.ChunkedArray[Any]
    gone: Int64
    fresh: pa.ChunkedArray[Any]

    @property
    def size(self) -> int:
        """The number of added and removed vectors."""
        return len(self.gone) + len(self.fresh)

    def next_ids(self) -> pa.ChunkedArray[Any]:
        """The keys by id after the change: removed keys are null, new keys are at the end."""
        mask = np.zeros(len(self.ids), dtype=np.bool_)
        mask[self.gone] = True
        kept = pc.if_else(pa.array(mask), pa.scalar(None, self.ids.type), self.ids)
        return pa.chunked_array([*kept.chunks, *self.fresh.chunks], self.ids.type)


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """The plan for the index of one side.

    Attributes:
        action: ``kept``, ``extended`` or ``trained``.
        why: the reason, or empty.
        added, removed: numbers of added and removed vectors.
        vectors: the number of vectors afterwards.
        change: the change by key; None if the index is trained.
    """

    action: Literal["kept", "extended", "trained"]
    why: str
    added: int
    removed: int
    vectors: int
    change: Change | None = None


def compare(ids: pa.ChunkedArray[Any], live: pa.ChunkedArray[Any]) -> Change:
    """Compare keys by id (null: removed) with the current keys (without duplicates).

    Raises:
        DataError: a key is not a sha256.
    """
    wanted = distinct(column_keys(live))
    rows = np.flatnonzero(ids.is_valid().to_numpy())
    places = places_of(column_keys(ids.drop_null()), wanted)
    stays = places >= 0
    fresh = np.ones(len(live), dtype=np.bool_)
    fresh[wanted.rows[places[stays]]] = False
    return Change(ids, rows[~stays].astype(np.int64), live.filter(pa.array(fresh)))


def recipe_of(fingerprint: str, config: IndexConfig) -> str:
    """Return a digest of the model and settings; an index with another one cannot be extended."""
    text = f"{fingerprint}\n{config.model_dump_json(exclude=NOT_IN_RECIPE)}"
    return hashlib.sha256(text.encode()).hexdigest()


def why_anew(info: IndexInfo, change: Change, recipe: str, config: IndexConfig) -> str:
    """Why an index must be trained again instead of extended; empty if it can be extended.

    Args:
        info: the index of the last version.
        change: the change.
        recipe: the result of :func:`recipe_of` for this run.
        config: the section index.

        Raises:
        UsageError: no index of the requested kind fits in the memory limit.
    """
    n = info.n + len(change.fresh) - len(change.gone)
    if info.recipe != recipe:
        return "another model or other settings"
    if info.faiss_version != faiss.__version__:
        return f"it was made by faiss {info.faiss_version}, this is {faiss.__version__}"
    if not change.size:
        return ""
    plans = candidates(n, info.dim, config.kind, config.memory_bytes)
    if plans[0].exact != info.exact:
        other = "a quantised index" if info.exact else "exact search"
        return f"{n:,} vectors require {other}"
    if info.exact:
        rows = info.rows + len(change.fresh)
        dead = (rows - n) / max(1, rows)
        return f"{dead:.1%} of the rows have been removed" if dead > EXACT_DEAD_SHARE else ""
    return _drift(info, change, n, config) or _too_large(info, plans, config)


def _drift(info: IndexInfo, change: Change, n: int, config: IndexConfig) -> str:
    changed = info.changed + change.size
    if changed > config.retrain_at * info.trained_on:
        share = changed / max(1, info.trained_on)
        return f"{share:.1%} changed since training, more than {config.retrain_at:.1%}"
    if n > MOST_GROWTH * info.trained_on:
        return f"{n:,} vectors are over {MOST_GROWTH} times as many as in training"
    return ""


def _too_large(info: IndexInfo, plans: Sequence[IndexPlan], config: IndexConfig) -> str:
    """Return whether the memory limit now requires shorter codes; 8-bit codes are for GPUs."""
    if config.memory_bytes is None or "x4fs" not in info.factory:
        return ""
    fitting = {with_lists(plan.factory, "IVF") for plan in plans}
    fits = with_lists(info.factory, "IVF") in fitting
    return "" if fits else f"its codes no longer fit in {config.memory_bytes:,} bytes"


def segments_kept(sizes: Sequence[int], added: int) -> int:
    """Return how many leading segments are unchanged when ``added`` rows are appended.

    A new segment is merged with the previous one unless that is at least twice as large, and so on.
    Each segment is then at least twice as large as the next, so there are few segments, and rows
    are rarely copied.
    """
    kept, tail = len(sizes), added
    while kept and tail and sizes[kept - 1] < 2 * tail:
        kept -= 1
        tail += sizes[kept]
    return kept
