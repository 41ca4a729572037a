"""Fill an index with several processes and with one; compare time, peak memory and bytes.

    bench_fill.py [--n 100000] [--processes 4]
    BENCH=full: 1,000,000 vectors

Both fill the same trained index from the same vectors (benchkit/clustered.py), 512 dimensions.
Several processes are faster only if there are more cores than one process keeps busy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchkit.process import again
from benchkit.report import Report, options_of

DIM = 512
_PART = 65_536


def prepare(folder: Path, n: int) -> None:
    """The vectors of a store, and a trained index that contains no vectors."""
    import faiss
    import msgspec

    from benchkit.clustered import clustered
    from mmindex.core.system import usable_cores
    from mmindex.index.plan import candidates
    from mmindex.index.train import build
    from mmindex.store.vectors import Vectors, write_segment
    from support.index_stores import open_objects

    objects, rows = open_objects(folder / "store"), clustered(n, DIM)

    def blocks() -> Iterator[NDArray[np.float16]]:
        yield from (rows[start : start + _PART] for start in range(0, n, _PART))

    refs = write_segment(objects, "image", 0, DIM, blocks())
    (folder / "refs.json").write_bytes(msgspec.json.encode(refs))
    plan = candidates(n, DIM, "ivfpq", None, None)[0]

    def keep(index: Any) -> bool:
        faiss.write_index(index, str(folder / "trained"))
        return True

    vectors = Vectors(objects, refs, "image", DIM)
    build(plan, vectors, None, 0, usable_cores(), keep)
    print(json.dumps({"factory": plan.factory}))


def fill_with(folder: Path, processes: int) -> None:
    """Fill the trained index; print seconds, peaks in MiB, and the sha256 of the result."""
    import faiss
    import msgspec

    from mmindex.core.system import usable_cores
    from mmindex.index.exact import faiss_settings
    from mmindex.index.fill import ProcessFiller, fill, job_of, spans_of
    from mmindex.index.train import _add
    from mmindex.store.manifest import ObjectRef
    from mmindex.store.vectors import Vectors
    from support.index_stores import open_objects

    objects = open_objects(folder / "store")
    refs = msgspec.json.decode((folder / "refs.json").read_bytes(), type=tuple[ObjectRef, ...])
    index = faiss.read_index(str(folder / "trained"))
    threads = usable_cores()
    vectors = Vectors(objects, refs, "image", DIM)
    begun = time.perf_counter()
    if processes == 1:
        with faiss_settings(threads, DIM):
            _add(index, vectors, None)
    else:
        job = job_of(objects, refs, "image", DIM, threads)
        spans = spans_of(vectors.n, job.block, processes)
        fill(index, objects, job, spans, ProcessFiller(processes))
    seconds = time.perf_counter() - begun
    peaks = {
        name: round(resource.getrusage(who).ru_maxrss / 1024)
        for name, who in (("own", resource.RUSAGE_SELF), ("worker", resource.RUSAGE_CHILDREN))
    }
    faiss.write_index(index, str(folder / f"filled-{processes}"))
    data = (folder / f"filled-{processes}").read_bytes()
    print(
        json.dumps(
            {
                "processes": processes,
                "seconds": round(seconds, 1),
                "driver_peak_mib": peaks["own"],
                "largest_worker_peak_mib": peaks["worker"],
                "index_mib": round(len(data) / (1 << 20), 1),
                "sha256": hashlib.sha256(data).hexdigest()[:16],
            }
        )
    )


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--n", type=int, default=None)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        folder, what = Path(options.part[0]), int(options.part[1])
        prepare(folder, options.n) if what == 0 else fill_with(folder, what)
        return
    n = options.n or (1_000_000 if options.full else 100_000)
    report = Report("fill", options)
    with tempfile.TemporaryDirectory() as work:
        made = again(__file__, "--n", n, "--part", work, 0).json()
        rows = [
            again(__file__, "--part", work, processes).json()
            for processes in (1, options.processes)
        ]
    same = rows[0]["sha256"] == rows[1]["sha256"]
    report.table(f"{n:,} x {DIM}, {made['factory']}; same bytes: {same}", rows)


if __name__ == "__main__":
    main()
