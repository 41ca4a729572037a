"""Build the index of one side: from embedding shards to ids, vectors and a tuned FAISS index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.config import IndexConfig
from mmindex.core.errors import InternalError
from mmindex.core.modality import Modality
from mmindex.core.progress import StageTimer, get_logger
from mmindex.index import gpu as gpus
from mmindex.index.exact import thread_count
from mmindex.index.faissio import write_index
from mmindex.index.fill import Filler, Job, can_be_merged, fill, job_of, spans_of
from mmindex.index.gather import (
    IDS_SCHEMA,
    as_keys,
    id_batches,
    locate,
    numbered_blocks,
    vector_blocks,
)
from mmindex.index.plan import IndexPlan, candidates, for_sample
from mmindex.index.train import build, sample_rows
from mmindex.index.tune import RECALL_AT, Blocks, Tuning, fidelity_of, tune, yardstick
from mmindex.store.manifest import IndexInfo, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.vectors import Vectors, write_segment

# For larger corpora, recipes are compared on a sample with this number of rows.
REHEARSAL_ROWS = 131_072
_REHEARSE_FROM = 4 * REHEARSAL_ROWS


@dataclass(frozen=True, slots=True)
class IndexReport:
    """The result for one side.

    Attributes:
        info: how the index was built and is searched, for the manifest.
        objects: the written objects, for the manifest.
        seconds: wall time by part.
    """

    info: IndexInfo
    objects: tuple[ObjectRef, ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Job:
    vectors: Vectors
    queries: NDArray[np.float32] | None
    config: IndexConfig
    threads: int
    originals: Callable[[], Blocks] | None  # the original vectors, if re-ranking uses rounded ones
    fill: Callable[[Any], bool] | None


def build_index(
    objects: Objects,
    modality: Modality,
    keys: Iterable[str] | pa.Array[Any] | pa.ChunkedArray[Any],
    shards: Sequence[ObjectRef],
    config: IndexConfig,
    queries: NDArray[np.float32] | None = None,
    filler: Filler | None = None,
) -> IndexReport:
    """Build an index of the current vectors; ids are 0, 1, ... in the order of ``keys``.

    Args:
        objects: the store's objects.
        modality: ``image`` or ``text``.
        keys: current keys without duplicates, in the order of their ids.
        shards: embedding shards (Parquet: key, vector) with their vectors.
        config: kind, recall target, seed, threads, memory and GPU.
        queries: float32 (q, dim), unit length: vectors of the other modality for tuning. Queries
            from the other modality are farther from the corpus and need more probes than its own
            vectors. None: a sample of the corpus, without counting the row of the query.
        filler: fills large indexes by several workers; None: this process does.

    Returns:
        the report; its objects are ``ids/``, ``vectors/``, ``digests/`` and, unless the search
        is exact, ``index/`` of the modality.

    Raises:
        InternalError: a key has no vector.
        UsageError: the requested index is impossible.
        DataError: a shard is damaged or a vector is not of unit length.
    """
    timer = StageTimer()
    threads = thread_count(config.threads)
    with timer.measure("gather"):
        column = as_keys(keys)
        located = locate(objects, column, shards)
        n, dim = len(column), located.dim
        # Report impossible settings before anything is written.
        found = gpus.detect(config.gpu, memory=True)
        plans = candidates(n, dim, config.kind, config.memory_bytes, found)
        ids = objects.write_table(f"ids/{modality}", IDS_SCHEMA, id_batches(column))
        refine = "fp16" if plans[0].exact else config.refine
        blocks = vector_blocks(objects, located, shards)
        written = write_segment(objects, modality, 0, dim, blocks, refine)
    refs: tuple[ObjectRef, ...] = (ids, *written)
    if plans[0].exact:
        return IndexReport(_info(modality, plans[0], config, threads, None), refs, timer.seconds)
    vectors = Vectors(objects, refs, modality, dim)
    originals = partial(numbered_blocks, objects, located, shards) if refine == "sq8" else None
    fill = None
    if filler is not None:
        fill = partial(_fill, objects, job_of(objects, refs, modality, dim, threads), n, filler)
    job = _Job(vectors, queries, config, threads, originals, fill)
    plan, index, tuning = _build_best(plans, job, timer)
    with timer.measure("write"):
        refs = (*refs, write_index(objects, modality, index))
    return IndexReport(_info(modality, plan, config, threads, tuning), refs, timer.seconds)


def _fill(objects: Objects, job: Job, n: int, filler: Filler, index: Any) -> bool:
    """Fill an index by several workers; return False if one process does it as well."""
    spans = spans_of(n, job.block, filler.workers)
    if len(spans) < 2 or not can_be_merged(index):
        return False
    fill(index, objects, job, spans, filler)
    return True


def _info(
    modality: Modality, plan: IndexPlan, config: IndexConfig, threads: int, tuning: Tuning | None
) -> IndexInfo:
    return IndexInfo(
        modality=modality,
        factory=plan.factory,
        reason=plan.reason,
        n=plan.n,
        dim=plan.dim,
        seed=config.seed,
        threads=threads,
        faiss_version=faiss.__version__,
        training_rows=plan.training_rows,
        nprobe=tuning.nprobe if tuning else 1,
        k_factor=tuning.k_factor if tuning else 1,
        recall_target=config.recall_target,
        measured_recall=tuning.recall if tuning else None,
        trained_recall=tuning.recall if tuning else None,
        rows=plan.n,
        trained_on=plan.n,
        curve=tuning.curve if tuning else (),
        refine=config.refine if tuning else "fp16",
        fidelity=tuning.fidelity if tuning else 1.0,
    )


def _build_best(
    plans: tuple[IndexPlan, ...], job: _Job, timer: StageTimer
) -> tuple[IndexPlan, Any, Tuning]:
    """Build the first plan whose measured recall reaches the target, or the best one.

    How far a rotation can reduce dimensions depends on the embeddings, so recall is measured: with
    the index itself, or for a large corpus with a trial on a sample.
    """
    if len(plans) > 1 and job.vectors.n >= _REHEARSE_FROM:
        with timer.measure("rehearse"):
            rows = sample_rows(job.vectors.n, REHEARSAL_ROWS, job.config.seed)
            small = tuple(for_sample(plan, len(rows)) for plan in plans)
            winner = _first_reaching(small, job, rows, StageTimer())[0]
        plans = (plans[winner],)
    number, index, tuning = _first_reaching(plans, job, None, timer)
    plan = plans[number]
    if not tuning.reached:
        target = job.config.recall_target
        get_logger("index").warning(
            "recall target not reached", recall=tuning.recall, target=target, factory=plan.factory
        )
        short = f"recall@{RECALL_AT} is {tuning.recall:.3f} at best, below the target {target}"
        plan = replace(plan, reason=f"{plan.reason}; {short}")
    return plan, index, tuning


def _first_reaching(
    plans: tuple[IndexPlan, ...], job: _Job, rows: NDArray[np.int64] | None, timer: StageTimer
) -> tuple[int, Any, Tuning]:
    """Build and tune plans until one reaches the target.

    Returns:
        the number of the plan with the best recall, its index and its setting.
    """
    seed, target = job.config.seed, job.config.recall_target
    with timer.measure("truth"):
        yard = yardstick(job.vectors, rows, job.queries, seed, job.threads)
        if job.originals is not None and rows is None:
            kept = fidelity_of(job.vectors, job.originals(), yard.queries, job.threads)
            yard = replace(yard, fidelity=kept)
    best: tuple[int, Any, Tuning] | None = None
    for number, plan in enumerate(plans):
        with timer.measure("build"):
            fill = job.fill if rows is None else None
            index = build(plan, job.vectors, rows, seed, job.threads, fill)
        with timer.measure("tune"):
            tuning = tune(index, plan, yard, target, job.threads)
        if best is None or tuning.recall > best[2].recall:
            best = (number, index, tuning)
        if tuning.reached:
            break
    if best is None:
        raise InternalError("no index plan to build")
    return best
