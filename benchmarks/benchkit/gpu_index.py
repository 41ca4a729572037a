"""Checks of FAISS on a device: every form of index that a plan can choose, limits, filters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchkit.checks import Check, at_least
from benchkit.clustered import clustered
from benchkit.report import Row
from mmindex.core.errors import UsageError
from mmindex.index import gpu as gpus
from mmindex.index.exact import exact_search
from mmindex.index.faissio import find_candidates, ivf_part
from mmindex.index.plan import IndexPlan, candidates
from mmindex.index.train import build
from mmindex.store.vectors import Vectors, write_segment

K = 10
# Training on the device starts from other random numbers, and sums in another order.
_RECALL_SLACK = 0.02
_SEED = 5
_KINDS = ("ivfpq", "ivfflat", "sq8")
# Beside the legal values, some that the kernels must refuse.
_M = (*gpus.LEGAL_M, 5, 33, 80, 97, 128)
_SUB_DIMS = (*gpus.LEGAL_SUB_DIMS, 5, 7, 14, 64)
Int64 = NDArray[np.int64]
Search = Callable[[NDArray[np.float32], int], Int64]


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a device does with indexes; a CPU stands in with its own code.

    Attributes:
        mode: the setting ``index.gpu`` for building on the device.
        gpu: the GPUs for queries; None for a CPU.
        train: builds the index of a plan for the CPU, by training and adding on the device.
        search: copies an index to the device, given its codes and lists to probe, and returns its
            search.
    """

    mode: str
    gpu: gpus.GpuInfo | None
    train: Callable[[IndexPlan, Vectors], Any]
    search: Callable[[Any, int, int], Search]


def _train(plan: IndexPlan, vectors: Vectors) -> Any:
    return build(plan, vectors, None, _SEED, faiss.omp_get_max_threads())


def _on_cpu(index: Any, m: int, nprobe: int) -> Search:
    # The CPU searches every form; as a stand-in, it refuses what no GPU supports.
    ivf = ivf_part(index)
    gpus.check_gpu_legal(m, ivf.pq.nbits, ivf.d, nprobe)
    return lambda queries, count: find_candidates(index, queries, count, nprobe)


def _on_gpu(index: Any, m: int, nprobe: int) -> Search:
    clone = gpus.to_gpu(index, m, nprobe)
    return lambda queries, count: np.asarray(clone.search(queries, count)[1])


def kernels_of(device: str) -> Kernels:
    """Return the kernels of a device: ``cpu``, or all CUDA devices."""
    if device == "cpu":
        return Kernels("never", None, lambda plan, v: _train(replace(plan, gpu=False), v), _on_cpu)
    return Kernels("always", gpus.detect("always"), _train, _on_gpu)


@dataclass(frozen=True, slots=True)
class Sample:
    """Vectors in a store, queries, and their true neighbours."""

    vectors: Vectors
    queries: NDArray[np.float32]
    truth: Int64

    def recall(self, found: Int64) -> float:
        """Return the share of the true neighbours among the found ids."""
        pairs = zip(found.tolist(), self.truth.tolist(), strict=True)
        hits = [len(set(one) & set(true)) for one, true in pairs]
        return sum(hits) / self.truth.size


def make_sample(folder: Path, n: int, dim: int, queries: int) -> Sample:
    """Write ``n`` clustered vectors to a store, and find the true neighbours of the queries."""
    from support.index_stores import open_objects

    objects, rows = open_objects(folder), clustered(n + queries, dim)
    asked = rows[n:].astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    refs = write_segment(objects, "image", 0, dim, [rows[:n]])  # type: ignore[arg-type]
    vectors = Vectors(objects, refs, "image", dim)  # type: ignore[arg-type]
    return Sample(vectors, asked, exact_search([(np.arange(n), rows[:n])], asked, K)[1])


def plans_for(n: int, dims: tuple[int, ...]) -> list[IndexPlan]:
    """Return every form that a plan can choose for a GPU."""
    found = [
        plan
        for dim in dims
        for kind in _KINDS
        for plan in candidates(n, dim, kind, None, gpus.GpuInfo(1))
    ]
    return list({(plan.dim, plan.factory): plan for plan in found}.values())


def form(plan: IndexPlan, sample: Sample, kernels: Kernels) -> tuple[list[Check], Row]:
    """Build one form on the device and on the CPU, and search both."""
    begun = time.perf_counter()
    made = kernels.train(plan, sample.vectors)
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    usual = _train(replace(plan, gpu=False), sample.vectors)
    usual_seconds = time.perf_counter() - begun
    queries, nprobe, name = sample.queries, plan.nprobe, f"{plan.dim}: {plan.factory}"
    expected = sample.recall(find_candidates(usual, queries, K, nprobe))
    recall = sample.recall(find_candidates(made, queries, K, nprobe))
    checks = [at_least(f"{name}: recall like the CPU's", recall, expected - _RECALL_SLACK)]
    row = {"index": name, "seconds": seconds, "on the CPU": usual_seconds, "recall@10": recall,
           "CPU's recall@10": expected}  # fmt: skip
    if plan.m:  # forms without a product quantizer are searched on the CPU
        search = kernels.search(made, plan.m, nprobe)
        search(queries, K)
        begun = time.perf_counter()
        there = sample.recall(search(queries, K))
        row["queries/s"] = len(queries) / (time.perf_counter() - begun)
        checks.append(at_least(f"{name}: recall of searches", there, recall - _RECALL_SLACK))
    return checks, row


def limits(kernels: Kernels) -> Iterator[Check]:
    """Compare the table of legal settings with what the kernels refuse."""
    cases = [(m, 8, 8, 4) for m in _M] + [(8, 8, sub, 4) for sub in _SUB_DIMS]
    cases += [(96, 8, sub, 4) for sub in (1, 32)] + [(8, 4, 8, 4), (8, 8, 8, 2_049)]
    fail, run = [], []
    for m, bits, sub_dim, nprobe in cases:
        name = f"{m} x {bits} bits of {sub_dim} dimensions, nprobe {nprobe}"
        works, legal = _works(kernels, m, bits, sub_dim, nprobe), True
        try:
            gpus.check_gpu_legal(m, bits, m * sub_dim, nprobe)
        except UsageError:
            legal = False
        if legal and not works:
            fail.append(name)
        if works and not legal:
            run.append(name)
    yield Check("legal settings run", not fail, "; ".join(fail) or "all", "all")
    yield Check("refused settings do not run", not run, "; ".join(run) or "none", "none")


def _works(kernels: Kernels, m: int, bits: int, sub_dim: int, nprobe: int) -> bool:
    """Return whether the device can search an index, which is filled without training."""
    rng, dim = np.random.default_rng(_SEED), m * sub_dim
    lists = max(4, nprobe)
    centres = faiss.IndexFlatIP(dim)
    centres.add(rng.standard_normal((lists, dim), dtype=np.float32))
    index = faiss.IndexIVFPQ(centres, dim, lists, m, bits, faiss.METRIC_INNER_PRODUCT)
    codes = rng.standard_normal(m * (1 << bits) * sub_dim, dtype=np.float32)
    faiss.copy_array_to_vector(codes, index.pq.centroids)
    index.is_trained = True
    rows = rng.standard_normal((64, dim), dtype=np.float32)
    index.add(rows)
    try:
        found = kernels.search(index, m, nprobe)(rows[:4], K)
    except (RuntimeError, UsageError):
        return False
    expected = find_candidates(index, rows[:4], K, nprobe)
    pairs = zip(found.tolist(), expected.tolist(), strict=True)
    # Float16 tables can change the order of nearly equal scores.
    return all(len(set(one) & set(true)) >= K - 2 for one, true in pairs)


def filters(folder: Path, sample: Sample, kernels: Kernels) -> Iterator[Check]:
    """Search a store with and without a filter, as queries do."""
    from mmindex.core.config import IndexConfig
    from mmindex.search.searcher import Searcher
    from support.index_stores import indexed

    rows = sample.vectors.take(np.arange(sample.vectors.n))
    plan = candidates(len(rows), rows.shape[1], "ivfpq", None, gpus.GpuInfo(1))[0]
    config = IndexConfig(kind=plan.factory, gpu=kernels.mode)  # type: ignore[arg-type]
    snapshot = indexed(folder, rows, config)
    there = Searcher(snapshot, "image", gpu=kernels.gpu)  # type: ignore[arg-type]
    here = Searcher(snapshot, "image")  # type: ignore[arg-type]
    allowed = np.arange(0, len(rows), 2)
    for name, ids in (("without a filter", None), ("with a filter", allowed)):
        found, expected = (one.search(sample.queries, K, ids)[1] for one in (there, here))
        wrong = 0 if ids is None else int(np.count_nonzero(~np.isin(found, ids)))
        yield Check(f"queries {name}: only allowed ids", not wrong, f"{wrong}", "none outside")
        same = float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, expected)]))  # noqa: B905
        yield at_least(f"queries {name}: like the CPU's", same, 0.98)
