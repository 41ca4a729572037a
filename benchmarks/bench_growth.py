"""Measure how costs grow: seconds per 1,000 scenes by corpus size, query time by index size.

    bench_growth.py [--scenes 250 500 1000] [--n 20000 80000]
    BENCH=full: 1,000 to 100,000 scenes, 100,000 and 1,000,000 x 512 vectors

A build of N scenes is measured by stage, from its own report; the stages exclude costs that do not
depend on N (start, loading the model). The growth of a query is the exponent b of time = a n^b.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchkit.process import MMINDEX, again, run
from benchkit.report import Report, options_of

STAGES = ("crawl", "encode", "index", "evaluate")


def build(size: int, store: Path) -> dict[str, Any]:
    """Build once from drawn scenes; drawing counts as ``crawl``."""
    run([*MMINDEX, "build", "--store", store, "--source", f"scenes:{size}@7"])
    report = json.loads(sorted((store / "runs").glob("*.json"))[-1].read_text())
    seconds = dict(report["seconds"])
    # Loading the model takes the same time for every size; the exact evaluation is quadratic, and
    # capped by evaluate.max_queries.
    seconds["encode"] -= report["reports"]["encode"]["seconds"].get("load", 0.0)
    row: dict[str, Any] = {"scenes": size}
    for stage in STAGES:
        row[f"{stage} s/1000"] = seconds.get(stage, 0.0) / size * 1_000
    steady = sum(seconds.get(stage, 0.0) for stage in STAGES[:3])
    row["all but evaluate s/1000"] = steady / size * 1_000
    for stage in ("encode", "index"):
        row[f"peak MB, {stage}"] = report["peak_rss_bytes_after"][stage] / 2**20
    return row


def _added(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Return the cost of 1,000 more scenes, without the start of workers."""
    name = "all but evaluate s/1000"
    more = after[name] * after["scenes"] - before[name] * before["scenes"]
    return float(more / (after["scenes"] - before["scenes"]))


def searching(sizes: list[int], folder: Path) -> list[dict[str, Any]]:
    """Measure query times at the default recall target, as bench_index does."""
    script = str(Path(__file__).with_name("bench_index.py"))
    rows: list[dict[str, Any]] = []
    for n in sizes:
        case, work = folder / f"case{n}", folder / "work"
        again(script, "--part", "case", "", case, n, 512)
        again(script, "--part", "build", "mmindex", case, work / str(n), 2)
        found = again(script, "--part", "search", "mmindex", case, work / str(n), 2).json()
        point = found["chosen"]
        rows.append(
            {
                "vectors": n,
                "recall": point["recall"],
                "batch ms/query": 1e3 / point["batch_qps"],
                "single ms": point["single_ms"],
            }
        )
    for row in rows[1:]:
        times = math.log(row["vectors"] / rows[0]["vectors"])
        for name in ("batch ms/query", "single ms"):
            row[f"exponent, {name.split()[0]}"] = math.log(row[name] / rows[0][name]) / times
    return rows


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--scenes", type=int, nargs="*")
    parser.add_argument("--n", type=int, nargs="*")
    parser.add_argument("--work", type=Path, help="folder for stores; default: a temporary one")
    options = parser.parse_args()
    large = options.full
    scenes = options.scenes or ([1_000, 10_000, 100_000] if large else [250, 500, 1_000])
    sizes = options.n or ([100_000, 1_000_000] if large else [20_000, 80_000])
    report = Report("growth", options)
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        folder = Path(name)
        report.table("searching", searching(sizes, folder))
        rows = []
        for size in scenes:
            rows.append(build(size, folder / f"store{size}"))
            if len(rows) > 1:
                rows[-1]["added s/1000"] = _added(rows[-2], rows[-1])
            report.table("building from drawn scenes", rows)


if __name__ == "__main__":
    sys.exit(main())
