"""Build seconds, recall and query times of the index that mmindex chooses by itself.

    python benchmarks/index_search.py [--n 200000] [--dim 512] [--threads 2] [--index auto]

The vectors are synthetic but shaped like CLIP's (tests/support/clustered.py). Times are the best
of five; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

# Threads that spin while they wait make every figure worse on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import faiss
import numpy as np

from mmindex.config import IndexConfig
from mmindex.index.exact import exact_search
from mmindex.index.index import build_index
from mmindex.search.searcher import Searcher
from support.clustered import clustered
from support.index_stores import key_of, manifest_of, open_objects, write_shards

QUERIES, K = 1_000, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--index", default="auto")
    parser.add_argument("--recall-target", type=float, default=0.95)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads,", end=" ")
    print(f"faiss {faiss.__version__}, {options.n} x {options.dim}, load {os.getloadavg()[0]:.1f}")
    rows = clustered(options.n + QUERIES, options.dim)
    vectors, queries = rows[: options.n], rows[options.n :].astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), vectors, queries, options)


def measure(
    folder: Path, vectors: np.ndarray, queries: np.ndarray, options: argparse.Namespace
) -> None:
    objects = open_objects(folder)
    shards = write_shards(objects, vectors)
    keys = [key_of(number) for number in range(len(vectors))]
    config = IndexConfig(
        kind=options.index, threads=options.threads, recall_target=options.recall_target
    )
    start = time.perf_counter()
    report = build_index(objects, "image", keys, shards, config)
    total = time.perf_counter() - start
    info = report.info
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.seconds.items())
    print(f"{info.reason}\nstage {total:.1f} s ({parts})")
    size = sum(ref.bytes for ref in report.objects if ref.name.startswith("index/"))
    print(
        f"nprobe {info.nprobe}, k_factor {info.k_factor}, tuned {info.measured_recall},"
        f" {size} bytes"
    )
    start = time.perf_counter()
    searcher = Searcher(objects, manifest_of(report), "image", threads=options.threads)
    print(f"open {time.perf_counter() - start:.3f} s")
    blocks = [(first, vectors[first : first + 32_768]) for first in range(0, len(vectors), 32_768)]
    truth = exact_search(blocks, queries, K, options.threads)[1]
    found = searcher.search(queries, K)[1]
    recall = np.mean([len(np.intersect1d(a, b)) for a, b in zip(truth, found, strict=True)]) / K
    batch = min(timed(lambda: searcher.search(queries, K)) for _ in range(5)) / len(queries)
    single = min(
        timed(lambda: [searcher.search(q[None], K) for q in queries[:200]]) for _ in range(5)
    )
    exact = min(timed(lambda: exact_search(blocks, queries, K, options.threads)) for _ in range(3))
    print(f"recall@{K} {recall:.4f}, batch {batch * 1e3:.3f} ms/query,", end=" ")
    print(
        f"single {single / 200 * 1e3:.3f} ms, exact batch {exact / len(queries) * 1e3:.3f} ms/query"
    )


def timed(action: object) -> float:
    start = time.perf_counter()
    action()  # type: ignore[operator]
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
