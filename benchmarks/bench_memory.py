"""Peak memory of encoding and of whole builds by corpus size, and of building and opening an index.

    bench_memory.py [--scenes 250 1000] [--n 50000]
    BENCH=full: up to 100,000 images, and 1,000,000 x 512 vectors

Images are drawn scenes of the embedded model, with five captions each. A build crawls, encodes,
indexes and evaluates in one process. The limit for the index is 1 GB plus the
training sample (float32) and the index itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchkit.process import MMINDEX, again, run
from benchkit.report import Report, options_of

DIM = 512
_PART = 65_536


def _status_mb(name: str) -> float:
    """Return a size of this process in MiB: ``VmHWM`` is the peak, with pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def write_vectors(folder: Path, n: int) -> None:
    """Write shards like those of the encode stage."""
    import msgspec

    from benchkit.clustered import clustered
    from support.index_stores import open_objects, write_shards

    shards = write_shards(open_objects(folder), clustered(n, DIM))
    (folder / "shards.json").write_bytes(msgspec.json.encode(shards))


def build(folder: Path, n: int) -> dict[str, Any]:
    """Run the index stage in this process and return its peak memory."""
    import msgspec
    import pyarrow as pa

    from mmindex.core.config import IndexConfig
    from mmindex.index.build import build_index
    from mmindex.store.manifest import ObjectRef
    from support.index_stores import key_of, manifest_of, open_objects

    shards = msgspec.json.decode((folder / "shards.json").read_bytes(), type=tuple[ObjectRef, ...])
    # As Arrow arrays, which the index stage receives.
    parts = [
        pa.array([key_of(number) for number in range(start, min(start + _PART, n))])
        for start in range(0, n, _PART)
    ]
    keys = pa.chunked_array(parts)
    del parts
    before = _status_mb("VmHWM")
    begun = time.perf_counter()
    report = build_index(open_objects(folder), "image", keys, shards, IndexConfig(kind="ivfpq"))
    seconds = time.perf_counter() - begun
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest_of(report)))
    size = next(ref.bytes for ref in report.objects if ref.name.startswith("index/"))
    return {
        "seconds": seconds,
        "before_mb": before,
        "peak_mb": _status_mb("VmHWM"),
        "index_mb": size / 2**20,
        "sample_mb": report.info.training_rows * DIM * 4 / 2**20,
    }


def open_index(folder: Path) -> dict[str, float]:
    """Open the index as for a query, and answer one query."""
    import msgspec
    import numpy as np

    from mmindex.search.searcher import Searcher
    from mmindex.store.manifest import Manifest
    from mmindex.store.snapshot import Snapshot
    from support.index_stores import open_objects

    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    query = np.ones((1, DIM), dtype=np.float32) / np.sqrt(DIM, dtype=np.float32)
    before = _status_mb("VmRSS")
    begun = time.perf_counter()
    searcher = Searcher(Snapshot(open_objects(folder), manifest), "image")
    opened = time.perf_counter() - begun
    searcher.search(query, 10)
    return {
        "open_s": opened,
        "open_and_ask_s": time.perf_counter() - begun,
        "added_mb": _status_mb("VmRSS") - before,
        "added_anonymous_mb": _status_mb("RssAnon"),
    }


def measured(command: str, store: Path, *arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a command that writes to the store; returns a row, and the report of the run."""
    ran = run([*MMINDEX, command, "--store", store, *arguments])
    report = json.loads(sorted((store / "runs").glob("*.json"))[-1].read_text())
    row = {
        f"{command} s": ran.wall_s,
        "peak MB": report["peak_rss_bytes"] / 2**20,
        "worker peak MB": report["peak_child_rss_bytes"] / 2**20,
    }
    return row, report


def encoding(sizes: list[int], folder: Path) -> list[dict[str, Any]]:
    rows = []
    for size in sizes:
        store = folder / f"store{size}"
        run([*MMINDEX, "crawl", "--store", store, "--source", f"scenes:{size}@7"])
        row, _ = measured("encode", store)
        rows.append({"scenes": size, **row})
    return rows


def building(sizes: list[int], folder: Path) -> list[dict[str, Any]]:
    rows = []
    for size in sizes:
        row, report = measured("build", folder / f"built{size}", "--source", f"scenes:{size}@7")
        stages = {f"{stage} s": seconds for stage, seconds in report["seconds"].items()}
        rows.append({"scenes": size, **row, **stages})
    return rows


def indexing(sizes: list[int], folder: Path) -> list[dict[str, Any]]:
    rows = []
    for n in sizes:
        case = folder / f"case{n}"
        again(__file__, "--part", "write", case, n)
        built = again(__file__, "--part", "build", case, n).json()
        opened = again(__file__, "--part", "open", case, n).json()
        bound = 1000 / 1.048576 + built["sample_mb"] + built["index_mb"]
        rows.append(
            {
                "vectors": n,
                "build s": built["seconds"],
                "peak MB": built["peak_mb"],
                "sample MB": built["sample_mb"],
                "index MB": built["index_mb"],
                "of the bound": built["peak_mb"] / bound,
                "open s": opened["open_s"],
                "open and ask s": opened["open_and_ask_s"],
                "opened MB": opened["added_mb"],
            }
        )
    return rows


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--scenes", type=int, nargs="*", help="default: 250 1000")
    parser.add_argument("--n", type=int, nargs="*", help="default: 50000")
    parser.add_argument("--work", type=Path, help="folder for stores; default: a temporary one")
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        what, folder, n = options.part[0], Path(options.part[1]), int(options.part[2])
        if what == "write":
            write_vectors(folder, n)
        else:
            print(json.dumps(build(folder, n) if what == "build" else open_index(folder)))
        return
    report = Report("memory", options)
    large = options.full
    scenes = options.scenes or ([1_000, 10_000, 100_000] if large else [250, 1_000])
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        sizes = options.n or ([1_000_000] if large else [50_000])
        report.table(f"index build, {DIM} dimensions", indexing(sizes, Path(name)))
        report.table("encoding drawn scenes", encoding(scenes, Path(name)))
        report.table("building from drawn scenes", building(scenes, Path(name)))


if __name__ == "__main__":
    sys.exit(main())
