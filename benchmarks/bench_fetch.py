"""Measure the speed of fetching a URL list from a server on loopback; compare with img2dataset.

    bench_fetch.py                    mmindex alone
    bench_fetch.py --limit            also aiohttp alone: no store, no rules, responses discarded
    bench_fetch.py --peer PYTHON      also img2dataset 1.47, from the environment of that Python
    bench_fetch.py --memory           10,000 and 100,000 rows

Each run has its own process and shares the machine's cores with the server process. Runs alternate,
and the best run of each side is reported. Without --peer, the script looks for img2dataset in the
environments of the peers (benchmarks/peers.sh).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchkit.process import peer as peer_python
from benchkit.report import Report, options_of

_PEER = """
import sys
from img2dataset import download
download(
    url_list=sys.argv[1], input_format="csv", url_col="url", caption_col="caption",
    output_folder=sys.argv[2], output_format="webdataset", processes_count=int(sys.argv[4]),
    thread_count=int(sys.argv[3]), resize_mode="no", disable_all_reencoding=True,
    compute_hash="sha256", number_sample_per_shard=1000, retries=0, enable_wandb=False,
    disallowed_header_directives=None if sys.argv[5] == "rude" else
    ["noai", "noimageai", "noindex", "noimageindex"],
)
"""


def make_images(count: int, side: int) -> list[bytes]:
    """Return JPEGs of noise with different bytes."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    base = noise.integers(0, 255, (side, side, 3), dtype=np.uint8)
    made = []
    for n in range(count):
        base[: side // 8] = noise.integers(0, 255, (side // 8, side, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(base).save(buffer, "JPEG", quality=75, comment=str(n).encode())
        made.append(buffer.getvalue())
    return made


def serve(count: int, side: int) -> None:
    """Serve images until the process ends; print the port as the first line."""
    from aiohttp import web

    images = make_images(min(count, 2_000), side)

    async def image(request: web.Request) -> web.Response:
        n = int(request.match_info["n"])
        # Rows after the first 2,000 get different bytes appended to the image.
        body = images[n % len(images)] + n.to_bytes(4, "big")
        return web.Response(body=body, content_type="image/jpeg")

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{n:[0-9]+}.jpg", image)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        sys.stdout.write(f"{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    asyncio.run(run())


@contextlib.contextmanager
def server(count: int, side: int) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", f"{count},{side}"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def run_mmindex(path: Path, store: Path, threads: int) -> None:
    """Fetch a list as `mmindex crawl` does; print seconds, peak memory and counts as JSON."""
    from mmindex.core.config import FetchConfig
    from mmindex.core.records import SourceItem
    from mmindex.sources.kinds.urls import UrlOptions, url_list_events
    from mmindex.store.versions import create_layout

    layout = create_layout(store)
    settings = FetchConfig(allow_private=True, per_host_concurrency=threads, concurrency=threads)
    begun = time.perf_counter()
    events = url_list_events(path, None, UrlOptions(layout, settings, 1 << 26))
    first = next(events)
    fetched = time.perf_counter() - begun
    items = sum(isinstance(event, SourceItem) for event in events) + isinstance(first, SourceItem)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({"fetch_s": fetched, "items": items, "peak_bytes": peak}) + "\n")


def run_limit(path: Path, threads: int) -> None:
    """Make the same requests with aiohttp only, and discard the responses."""
    import aiohttp

    async def run() -> None:
        urls = iter([line.partition(",")[0] for line in path.read_text().splitlines()[1:]])
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def lane() -> None:
                for url in urls:
                    async with session.get(url) as response:
                        await response.read()

            await asyncio.gather(*(lane() for _ in range(threads)))

    begun = time.perf_counter()
    asyncio.run(run())
    sys.stdout.write(json.dumps({"fetch_s": time.perf_counter() - begun}) + "\n")


def write_list(path: Path, port: int, rows: int) -> Path:
    lines = ["url,caption", *(f"http://127.0.0.1:{port}/{n}.jpg,picture {n}" for n in range(rows))]
    path.write_text("\n".join(lines) + "\n")
    return path


def child(*arguments: str) -> dict[str, float]:
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "process_s": time.perf_counter() - begun}


def peer(python: str, path: Path, folder: Path, threads: int, processes: int) -> dict[str, float]:
    """Run img2dataset once; the fetching time is also taken from the statistics of its shards."""
    begun = time.perf_counter()
    subprocess.run(
        [python, "-c", _PEER, str(path), str(folder), str(threads), str(processes), "polite"],
        check=True, capture_output=True,
        env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"},
    )  # fmt: skip
    stats = [json.loads(file.read_text()) for file in sorted(folder.glob("*_stats.json"))]
    fetched = max(s["end_time"] for s in stats) - min(s["start_time"] for s in stats)
    items = sum(stat["successes"] for stat in stats)
    return {"fetch_s": fetched, "items": items, "process_s": time.perf_counter() - begun}


def compare(options: argparse.Namespace, scratch: Path, port: int, report: Report) -> None:
    path = write_list(scratch / "list.csv", port, options.rows)
    results: dict[str, list[dict[str, float]]] = {}
    for turn in range(options.runs):
        store = scratch / f"store{turn}"
        threads = str(options.threads)
        results.setdefault("mmindex", []).append(
            child("--run", str(path), str(store), "--threads", threads)
        )
        shutil.rmtree(store)
        if options.limit:
            results.setdefault("aiohttp alone", []).append(
                child("--run-limit", str(path), "--threads", threads)
            )
        for processes in options.peer_processes if options.peer else ():
            folder = scratch / f"peer{turn}-{processes}"
            name = f"img2dataset, {processes} process{'es' * (processes > 1)}"
            results.setdefault(name, []).append(
                peer(options.peer, path, folder, options.threads, processes)
            )
            shutil.rmtree(folder)
    best = {name: min(run["fetch_s"] for run in runs) for name, runs in results.items()}
    rows = [
        {
            "program": name,
            "images/s": options.rows / best[name],
            "fetch s": best[name],
            "process s": min(run["process_s"] for run in runs),
            "kept": int(min(run.get("items", options.rows) for run in runs)),
            "mmindex is faster": best[name] / best["mmindex"],
        }
        for name, runs in results.items()
    ]
    report.table(f"{options.rows} images of {options.side} px, {options.threads} threads", rows)


def memory(options: argparse.Namespace, scratch: Path, port: int, report: Report) -> None:
    found = []
    for rows in (10_000, 100_000):
        path = write_list(scratch / f"list{rows}.csv", port, rows)
        store = scratch / f"store{rows}"
        first = child("--run", str(path), str(store), "--threads", str(options.threads))
        again = child("--run", str(path), str(store), "--threads", str(options.threads))
        shutil.rmtree(store)
        found.append(
            {
                "rows": rows,
                "images/s": rows / first["fetch_s"],
                "peak MB": first["peak_bytes"] / 1e6,
                "again s": again["fetch_s"],
                "again peak MB": again["peak_bytes"] / 1e6,
            }
        )
    report.table("memory; second run: nothing new to fetch", found)


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--rows", type=int, help="default: 2,000; 10,000 with --full")
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--peer", help="Python of an environment with img2dataset 1.47")
    parser.add_argument("--peer-processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--limit", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--run-limit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rows = options.rows or (10_000 if options.full else 2_000)
    if options.serve:
        count, side = options.serve.split(",")
        serve(int(count), int(side))
    elif options.run:
        run_mmindex(Path(options.run[0]), Path(options.run[1]), options.threads)
    elif options.run_limit:
        run_limit(Path(options.run_limit), options.threads)
    else:
        rows = 100_000 if options.memory else options.rows
        options.peer = options.peer or peer_python("img2dataset")
        report = Report("fetch", options)
        with (
            tempfile.TemporaryDirectory() as folder,
            server(rows, options.side) as port,
        ):
            run = memory if options.memory else compare
            run(options, Path(folder), port, report)


if __name__ == "__main__":
    main()
