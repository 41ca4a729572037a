"""Build or search the index of one peer for the files of a case, in the environment of the peers.

    ann.py SYSTEM build|search CASE WORK THREADS

CASE contains vectors.npy, queries.npy and truth.npy. The index is written to WORK, and one line of
JSON to stdout. The script imports nothing from mmindex, because the environment contains only the
peers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

K = 10
SINGLES = 200
_LONG_S = 2.0  # slower settings are not measured three times
# The name of a setting, and how to search with it.
Setting = tuple[str, Callable[[np.ndarray], np.ndarray]]


def read_case(case: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    vectors = np.load(case / "vectors.npy", mmap_mode="r")
    return vectors, np.load(case / "queries.npy"), np.load(case / "truth.npy")


def size_of(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())


@dataclass(frozen=True)
class System:
    """A peer: how to build its index, and its settings from fast to accurate."""

    dim: int
    threads: int
    file: ClassVar[str]

    def build(self, vectors: np.ndarray, path: Path) -> None:
        """Build and write the index."""
        raise NotImplementedError

    def settings(self, path: Path) -> Iterator[Setting]:
        """Open the index and yield its settings; each is active until the next one is requested."""
        raise NotImplementedError


class Hnswlib(System):
    """M 16, ef_construction 200: the defaults in the library's example."""

    file: ClassVar[str] = "hnswlib.bin"

    def build(self, vectors: np.ndarray, path: Path) -> None:
        import hnswlib

        index = hnswlib.Index(space="ip", dim=self.dim)
        index.init_index(max_elements=len(vectors), M=16, ef_construction=200, random_seed=0)
        index.set_num_threads(self.threads)
        for start in range(0, len(vectors), 65_536):
            part = vectors[start : start + 65_536].astype(np.float32)
            index.add_items(part, np.arange(start, start + len(part)))
        index.save_index(str(path))

    def settings(self, path: Path) -> Iterator[Setting]:
        import hnswlib

        index = hnswlib.Index(space="ip", dim=self.dim)
        index.load_index(str(path))
        index.set_num_threads(self.threads)
        for ef in (16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384):
            index.set_ef(ef)
            yield f"ef {ef}", lambda queries: index.knn_query(queries, k=K)[0].astype(np.int64)


class Usearch(System):
    """float16, the library's default connectivity and expansion."""

    file: ClassVar[str] = "usearch.bin"

    def build(self, vectors: np.ndarray, path: Path) -> None:
        from usearch.index import Index

        index = Index(ndim=self.dim, metric="ip", dtype="f16")
        for start in range(0, len(vectors), 65_536):
            part = np.ascontiguousarray(vectors[start : start + 65_536])
            index.add(np.arange(start, start + len(part)), part, threads=self.threads)
        index.save(str(path))

    def settings(self, path: Path) -> Iterator[Setting]:
        from usearch.index import Index

        index = Index(ndim=self.dim, metric="ip", dtype="f16")
        index.load(str(path))
        for expansion in (16, 20, 24, 32, 64, 96, 128, 192, 256, 384):
            index.expansion_search = expansion

            def ask(queries: np.ndarray) -> np.ndarray:
                found = index.search(queries.astype(np.float16), K, threads=self.threads)
                return np.asarray(found.keys).astype(np.int64).reshape(len(queries), K)

            yield f"expansion {expansion}", ask


class FaissWiki(System):
    """OPQ64_256,IVFn,PQ64 with 4 to 16 sqrt(n) lists, re-ranked from float16.

    This follows "Guidelines to choose an index" for this size and limited memory. The re-ranking
    follows the IndexRefine page, because 64 bytes alone do not reach the recall.
    """

    file: ClassVar[str] = "faiss.index"

    def build(self, vectors: np.ndarray, path: Path) -> None:
        import faiss

        faiss.omp_set_num_threads(self.threads)
        lists = 1 << int(4 * len(vectors) ** 0.5).bit_length() - 1
        factory = f"OPQ64_256,IVF{lists},PQ64,Refine(SQfp16)"
        index = faiss.index_factory(self.dim, factory, faiss.METRIC_INNER_PRODUCT)
        chosen = np.random.default_rng(0).choice(
            len(vectors), min(len(vectors), 64 * lists), replace=False
        )
        index.train(vectors[np.sort(chosen)].astype(np.float32))
        for start in range(0, len(vectors), 65_536):
            index.add(vectors[start : start + 65_536].astype(np.float32))
        faiss.write_index(index, str(path))

    def settings(self, path: Path) -> Iterator[Setting]:
        import faiss

        faiss.omp_set_num_threads(self.threads)
        index = faiss.read_index(str(path))
        inside = faiss.extract_index_ivf(index.base_index)
        for probes in (8, 16, 32, 64, 128, 256):
            for factor in (4, 10):
                inside.nprobe, index.k_factor = probes, factor
                yield f"nprobe {probes}, k_factor {factor}", lambda q: index.search(q, K)[1]


class LanceDb(System):
    """IVF_PQ with LanceDB's default rules; refine_factor re-ranks with the stored vectors."""

    file: ClassVar[str] = "lance"

    def build(self, vectors: np.ndarray, path: Path) -> None:
        import lancedb
        import pyarrow as pa

        def batches() -> Iterator[pa.RecordBatch]:
            for start in range(0, len(vectors), 65_536):
                part = vectors[start : start + 65_536].astype(np.float32)
                column = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), self.dim)
                ids = pa.array(np.arange(start, start + len(part)))
                yield pa.record_batch([ids, column], names=["id", "vector"])

        schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), self.dim))])
        table = lancedb.connect(str(path)).create_table("case", batches(), schema=schema)
        table.create_index(metric="dot", index_type="IVF_PQ")

    def settings(self, path: Path) -> Iterator[Setting]:
        import lancedb

        table = lancedb.connect(str(path)).open_table("case")
        for probes, refine in ((20, 10), (50, 10), (50, 30), (100, 30), (200, 50)):

            def ask(queries: np.ndarray, probes: int = probes, refine: int = refine) -> np.ndarray:
                out = np.full((len(queries), K), -1, dtype=np.int64)
                for row, query in enumerate(queries):
                    asked = table.search(query).distance_type("dot").limit(K).select(["id"])
                    found = asked.nprobes(probes).refine_factor(refine).to_arrow()["id"].to_numpy()
                    out[row, : len(found)] = found
                return out

            yield f"nprobes {probes}, refine {refine}", ask


class Autofaiss(System):
    """The index that autofaiss chooses, with at most as many bytes as mmindex's index."""

    file: ClassVar[str] = "autofaiss.index"

    def build(self, vectors: np.ndarray, path: Path) -> None:
        from autofaiss import build_index

        build_index(
            embeddings=np.asarray(vectors, dtype=np.float32),
            index_path=str(path),
            index_infos_path=str(path.with_suffix(".json")),
            max_index_memory_usage="40MB" if len(vectors) <= 250_000 else "200MB",
            current_memory_available="4GB",
            nb_cores=self.threads,
            metric_type="ip",
        )

    def settings(self, path: Path) -> Iterator[Setting]:
        import faiss

        faiss.omp_set_num_threads(self.threads)
        index = faiss.read_index(str(path))
        yield "as tuned by itself", lambda queries: index.search(queries, K)[1]


SYSTEMS: dict[str, type[System]] = {
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "LanceDB": LanceDb,
    "faiss IVF-PQ": FaissWiki,
    "autofaiss": Autofaiss,
}


def points(
    settings: Iterator[Setting], queries: np.ndarray, truth: np.ndarray, enough: float
) -> Iterator[dict[str, Any]]:
    """Return recall and times of each setting in turn, until the recall is high enough."""
    for name, ask in settings:
        ask(queries[:32])
        begun = time.perf_counter()
        found = ask(queries)
        batch = time.perf_counter() - begun
        if batch < _LONG_S:
            batch = min(batch, *(_seconds(partial(ask, queries)) for _ in range(2)))
        hits = (found[:, :, None] == truth[:, None, :]).any(axis=2)
        recall = float(hits.mean())
        alone = queries[: SINGLES if batch < _LONG_S else SINGLES // 4]
        single = min(_seconds(partial(_one_by_one, ask, alone)) for _ in range(3))
        yield {
            "setting": name,
            "recall": recall,
            "batch_qps": len(queries) / batch,
            "single_ms": single / len(alone) * 1e3,
        }
        if recall >= enough:
            return


def _one_by_one(ask: Callable[[np.ndarray], np.ndarray], queries: np.ndarray) -> None:
    for query in queries:
        ask(query[None])


def _seconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def main() -> None:
    name, phase, case, work, threads = sys.argv[1:]
    vectors, queries, truth = read_case(Path(case))
    system = SYSTEMS[name](vectors.shape[1], int(threads))
    path = Path(work) / system.file
    if phase == "build":
        seconds = _seconds(partial(system.build, vectors, path))
        result: dict[str, Any] = {"build_s": seconds, "bytes": size_of(path)}
    else:
        begun = time.perf_counter()
        settings = system.settings(path)
        first = next(settings)
        first[1](queries[:1])
        opened = time.perf_counter() - begun
        found = list(points(iter([first]), queries, truth, 0.99))
        if found[-1]["recall"] < 0.99:
            found += points(settings, queries, truth, 0.99)
        result = {"open_s": opened, "points": found}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
