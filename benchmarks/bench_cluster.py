"""Encoding on simulated nodes of one core: efficiency, and what a unit costs the command.

    bench_cluster.py [--images 120] [--model embedded] [--units 300] [--runs 3]
    BENCH=full: ViT-B-32, five minutes of work for one core, and 10,000 units; about 45 minutes

Needs ray and two idle cores. Nodes are processes of this machine, each bound to one core; the
command that drives them can use all cores. The same store is encoded by the command alone on one
core, by one node and by two nodes, in turn. Efficiency is the time of one node divided by twice the
time of two. The time to load the model is measured on each node, and its mean is subtracted,
because it does not depend on the size of the corpus.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from bench_encode import write_images
from benchkit.process import MMINDEX, again, run
from benchkit.report import Report, in_turn, options_of

ROWS = 16  # of a synthetic unit


@contextmanager
def nodes_on(cores: list[int]) -> Iterator[str]:
    """Start one node on each core; yield the address."""
    from support.raying import add_node, cluster

    everywhere = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as tricks:
        os.sched_setaffinity(0, {cores[0]})  # the processes of a node inherit it
        with cluster(Path(tricks)) as made:
            for core in cores[1:]:
                os.sched_setaffinity(0, {core})
                add_node(made)
            os.sched_setaffinity(0, everywhere)
            yield made.address


def encode_with(work: Path, cores: list[int], *, alone: bool) -> dict[str, float]:
    """Encode a copy of the crawled store; return seconds."""
    store = work / "store"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(work / "crawled", store)
    command = [*MMINDEX, "encode", "--store", store, "--config", work / "config.toml"]
    command += ["--format", "json"]
    if alone:
        done = run(["taskset", "-c", str(cores[0]), *command])
    else:
        with nodes_on(cores) as address:
            done = run([*command, "--cluster", address])
    report = done.json()
    stage, load = report["seconds"]["encode"], report["reports"]["encode"]["seconds"]["load"]
    found = {"stage": stage, "load": load / len(cores), "command": done.wall_s}
    print(f"  {'alone' if alone else f'{len(cores)} nodes'}: {found}", flush=True)
    return found


def efficiency(options: argparse.Namespace, report: Report) -> None:
    """Compare two nodes of one core with one, and one with no cluster."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    images = options.images or (2_700 if options.full else 120)
    model = options.model or ("ViT-B-32" if options.full else "embedded")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        work = Path(folder)
        what = write_images(work / "images", options.photos, images)
        crawl(work, model, max(4, images // 100))
        seconds: dict[str, list[dict[str, float]]] = {"alone": [], "one": [], "two": []}

        def measured(name: str, cores: list[int], *, alone: bool) -> float:
            seconds[name].append(encode_with(work, cores, alone=alone))
            return seconds[name][-1]["stage"]

        actions = {
            "alone": partial(measured, "alone", [first], alone=True),
            "one": partial(measured, "one", [first], alone=False),
            "two": partial(measured, "two", [first, second], alone=False),
        }
        in_turn(actions, options.runs)
    told = {
        name: {part: statistics.median(run[part] for run in runs) for part in runs[0]}
        for name, runs in seconds.items()
    }
    net = {
        name: statistics.median(run["stage"] - run["load"] for run in runs)
        for name, runs in seconds.items()
    }
    rows = [{"nodes": name, **parts, "without load": net[name]} for name, parts in told.items()]
    report.table(f"{images:,} images ({what}), {model}: seconds, medians", rows)
    ratios = {
        "two nodes against one (at least 0.8)": net["one"] / (2 * net["two"]),
        "with loading": told["one"]["stage"] / (2 * told["two"]["stage"]),
        "whole command": told["one"]["command"] / (2 * told["two"]["command"]),
        "time of one node against none (at most 1.10)": net["one"] / net["alone"],
    }
    report.table("efficiency", [{"what": name, "ratio": ratio} for name, ratio in ratios.items()])
    report.keep("runs", seconds)


def crawl(work: Path, model: str, shard_rows: int) -> None:
    """Crawl the images into ``work/crawled``, with settings in ``work/config.toml``."""
    lines = [f'[[source]]\nspec = "folder:{work}/images"', f'[model]\nname = "{model}"']
    if model not in ("embedded", "photos"):
        from benchkit.models import seeded_weights

        lines.append(f'pretrained = "{seeded_weights(model, work)}"')
    lines.append(f'[encode]\nprecision = "fp32"\ncores = 1\nshard_rows = {shard_rows}\n')
    (work / "config.toml").write_text("\n".join(lines))
    run([*MMINDEX, "crawl", "--store", work / "crawled", "--config", work / "config.toml"])


def drive(units: int) -> None:
    """Drive small units of a fake model; print the processor time and memory of this process."""
    from mmindex.cluster.join import Joined
    from mmindex.encode.cluster import ClusterWorker
    from mmindex.encode.stage import encode
    from mmindex.store.lock import writer_lock
    from mmindex.store.objects import Objects
    from mmindex.store.snapshot import Snapshot
    from mmindex.store.versions import create_layout
    from support.encoding import settings
    from support.manifests import manifest
    from support.raying import tricky_source
    from support.tables import write_corpus

    config = settings(shard_rows=ROWS, workers=1, cores=1)
    cores = sorted(os.sched_getaffinity(0))[:2]
    with tempfile.TemporaryDirectory() as folder, nodes_on(cores) as address:
        objects = Objects(create_layout(Path(folder) / "store"))
        corpus = write_corpus(objects, [], [f"text {number}" for number in range(units * ROWS)])
        gc.collect()
        with (
            writer_lock(objects.layout),
            closing(Joined.join(address, objects.layout, config)) as joined,
        ):
            worker = ClusterWorker.on(joined, config, None, tricky_source)
            before, cpu, begun = _resident(), time.process_time(), time.perf_counter()
            draft = Snapshot(objects, manifest())
            report = encode(worker.source, draft, corpus.tables, config, cluster=worker)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert report.encoded_texts == units * ROWS
    told = {
        "units": units,
        "processor_ms_a_unit": 1000 * cpu / units,
        "wall_ms_a_unit": 1000 * wall / units,
        "mib_before": before,
        "mib_peak": peak,
        "kib_a_unit": 1024 * (peak - before) / units,
    }
    print(json.dumps({name: round(value, 2) for name, value in told.items()}))


def _resident() -> float:
    """Return the resident set in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--images", type=int)
    parser.add_argument("--model")
    parser.add_argument("--units", type=int)
    parser.add_argument("--photos", type=Path, default=os.environ.get("MMINDEX_BENCH_PHOTOS"))
    parser.add_argument("--folder", type=Path, help="where to put the store and the images")
    parser.add_argument("--only", choices=("efficiency", "driver"))
    parser.add_argument("--drive", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(options.drive)
        return
    report = Report("cluster", options)
    if options.only != "efficiency":
        units = options.units or (10_000 if options.full else 300)
        rows = [again(__file__, "--drive", count).json() for count in sorted({units // 10, units})]
        report.table(f"the command, units of {ROWS} texts and a fake model", rows)
    if options.only != "driver":
        efficiency(options, report)


if __name__ == "__main__":
    main()
