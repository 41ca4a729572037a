"""Index build and search, compared with hnswlib, usearch, LanceDB, a faiss recipe and autofaiss.

    bench_index.py [--n 20000] [--dim 512] [--systems mmindex hnswlib ...] [--work DIR]
    BENCH=full: 200,000 and 1,000,000 vectors; autofaiss (12 minutes) only at 200,000

Every system gets the same vectors (benchkit/clustered.py), queries and threads, and builds in one
process and searches in another. For each recall, the fastest setting that reaches it is reported.
Recall is the share of the ten exact best that is found. Peers run in their own environments.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchkit.process import again, peer, run
from benchkit.report import Report, options_of

K, QUERIES = 10, 1_000
TARGETS = (0.95, 0.98)
PEERS = ("hnswlib", "usearch", "LanceDB", "faiss IVF-PQ", "autofaiss")
# mmindex with the re-ranking vectors in float16, or in 8 bits.
OWN = {"mmindex": "fp16", "mmindex sq8": "sq8"}
_SCRIPT = Path(__file__).parent / "peers" / "ann.py"


def build_own(case: Path, work: Path, threads: int, refine: str) -> dict[str, Any]:
    """Run the index stage on shards like those of the encode stage."""
    from mmindex.core.config import IndexConfig
    from mmindex.index.build import build_index
    from support.index_stores import key_of, open_objects, write_shards

    vectors = np.load(case / "vectors.npy", mmap_mode="r")
    objects = open_objects(work / "store")
    shards = write_shards(objects, vectors)
    keys = [key_of(number) for number in range(len(vectors))]
    settings = {"refine": refine} if refine != "fp16" else {}
    config = IndexConfig(kind="ivfpq", threads=threads, recall_target=TARGETS[-1], **settings)
    begun = time.perf_counter()
    report = build_index(objects, "image", keys, shards, config)
    seconds = time.perf_counter() - begun
    sizes = {ref.name.partition("/")[0]: ref.bytes for ref in report.objects}
    (work / "report.json").write_text(
        json.dumps({"info": _plain(report.info), "objects": [_plain(r) for r in report.objects]})
    )
    return {
        "build_s": seconds,
        "bytes": sizes["index"] + sizes["vectors"],
        "index_bytes": sizes["index"],
        "parts": {name: round(value, 2) for name, value in report.seconds.items()},
        "why": report.info.reason,
    }


def _plain(record: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(record)


def search_own(case: Path, work: Path, threads: int) -> dict[str, Any]:
    """Search an index opened as for a query; the settings are the points of the stored curve."""
    import msgspec

    from mmindex.search.searcher import Searcher
    from mmindex.store.manifest import IndexInfo, ObjectRef
    from mmindex.store.snapshot import Snapshot
    from support.index_stores import open_objects
    from support.manifests import manifest

    stored = json.loads((work / "report.json").read_text())
    info = msgspec.convert(stored["info"], IndexInfo)
    made = manifest(
        indexes={"image": info},
        objects=tuple(msgspec.convert(ref, ObjectRef) for ref in stored["objects"]),
    )
    queries, truth = np.load(case / "queries.npy"), np.load(case / "truth.npy")
    begun = time.perf_counter()
    searcher = Searcher(Snapshot(open_objects(work / "store"), made), "image", threads=threads)
    searcher.search(queries[:1], K)
    opened = time.perf_counter() - begun

    def settings() -> Iterator[tuple[str, Any]]:
        for nprobe, k_factor, _, _ in [(info.nprobe, info.k_factor, 0, 0), *_frontier(info.curve)]:
            searcher.info = msgspec.structs.replace(info, nprobe=nprobe, k_factor=k_factor)
            yield (
                f"nprobe {nprobe}, k_factor {k_factor}",
                lambda asked: searcher.search(asked, K)[1],
            )

    sys.path.insert(0, str(_SCRIPT.parent))
    from ann import points

    found = list(points(settings(), queries, truth, 1.1))
    return {"open_s": opened, "points": found, "chosen": found[0]}


def _frontier(curve: Any) -> list[tuple[int, int, float, float]]:
    """Return the cheapest point for each recall from 0.9, by the stored estimate."""
    best: list[tuple[int, int, float, float]] = []
    for point in sorted(curve, key=lambda point: point[3]):
        if point[2] >= 0.9 and (not best or point[2] > best[-1][2]):
            best.append(point)
    return best


def measure(name: str, case: Path, work: Path, threads: int) -> dict[str, Any] | None:
    """Build and search with one system, each in its own process."""
    arguments = (name, str(case), str(work), str(threads))
    work.mkdir(parents=True)
    try:
        if name in OWN:
            built = again(__file__, "--part", "build", *arguments)
            asked = again(__file__, "--part", "search", *arguments)
        else:
            python = peer("autofaiss" if name == "autofaiss" else "ann")
            if python is None:
                return None
            built = run([python, _SCRIPT, name, "build", *arguments[1:]])
            asked = run([python, _SCRIPT, name, "search", *arguments[1:]])
    finally:
        shutil.rmtree(work)
    return {
        "system": name,
        **built.json(),
        **asked.json(),
        "build_peak_mb": built.peak_mb,
        "search_peak_mb": asked.peak_mb,
    }


def rows_of(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in found:
        row = {
            "system": one["system"],
            "build s": one["build_s"],
            "MB": one["bytes"] / 1e6,
            "index MB": one.get("index_bytes", one["bytes"]) / 1e6,
            "build peak MB": one["build_peak_mb"],
            "search peak MB": one["search_peak_mb"],
            "open s": one["open_s"],
        }
        for target in TARGETS:
            enough = [point for point in one["points"] if point["recall"] >= target]
            best = max(enough, key=lambda point: point["batch_qps"], default={})
            row[f"batch q/s at {target}"] = best.get("batch_qps")
            row[f"single ms at {target}"] = min((p["single_ms"] for p in enough), default=None)
        row["best recall"] = max(point["recall"] for point in one["points"])
        # The setting that --recall-target chose from its own sample, measured on other queries.
        row[f"recall as tuned to {TARGETS[-1]}"] = one.get("chosen", {}).get("recall")
        yield row


def compare(report: Report, n: int, options: argparse.Namespace, folder: Path) -> None:
    case = (options.cases or folder) / f"{n}x{options.dim}"
    if not (case / "vectors.npy").exists():
        # In its own process: a child starts with the peak memory of its parent.
        again(__file__, "--part", "case", "", str(case), str(n), str(options.dim))
    found: list[dict[str, Any]] = []
    for name in options.systems:
        if name == "autofaiss" and n > 200_000:
            continue
        one = measure(name, case, folder / "work", options.threads)
        if one is not None:
            found.append(one)
            # After each case, because the largest take an hour.
            report.table(f"{n} x {options.dim}, {options.threads} threads", list(rows_of(found)))
            report.keep(f"{n} x {options.dim}, points", found)


def part(values: list[str]) -> None:
    phase, name, case, work, threads = values
    if phase == "case":
        from benchkit.clustered import write_case

        write_case(Path(case), int(work), int(threads), QUERIES, K)
        return
    paths = (Path(case), Path(work), int(threads))
    found = build_own(*paths, OWN[name]) if phase == "build" else search_own(*paths)
    print(json.dumps(found))


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--n", type=int, nargs="*", help="numbers of vectors")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--systems", nargs="*", default=[*OWN, *PEERS], choices=[*OWN, *PEERS])
    parser.add_argument("--work", type=Path, help="folder for indexes; default: a temporary one")
    parser.add_argument("--cases", type=Path, help="folder that keeps the vectors between runs")
    parser.add_argument("--part", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part(options.part)
        return
    report = Report("index", options)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        for n in options.n or ([200_000, 1_000_000] if options.full else [20_000]):
            compare(report, n, options, Path(folder))


if __name__ == "__main__":
    main()
