"""Measure requests per second of `mmindex serve` while versions change, and of `clip back`.

    bench_serve.py [--images 10000] [--clients 64] [--seconds 15]

The store has 2,000 drawn scenes, and clustered vectors without files. Each client sends one request
after the other: texts of four words, and thumbnails of the scenes. In the mixed case, a rollback
publishes a version every ten seconds; then a build adds 1,000 vectors, and the clients go on until
it has published. Every response counts as an error, except 200, and 503 with Retry-After.

clip-retrieval's `clip back` answers the same texts from the same vectors with the same model, if
its environment exists. Recall is measured on the answers of both, against exact search.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq

import mmindex
from benchkit.clustered import clustered
from benchkit.process import MMINDEX, peer, run
from benchkit.report import Report, options_of
from mmindex.core.resources import data_dir

WORDS = [
    *("red", "blue", "green", "boat", "house", "tree", "cat", "dog", "sea", "snow", "night", "day"),
    *("sun", "moon", "two", "three", "small", "large", "bird", "car", "road", "hill", "cloud"),
]
HITS = 20
K = 10  # of recall
RECALL = "0.997"  # that of clip back
QUERIES = 500
SCENES = 2_000
EVERY_S = 10  # between two versions
BACK = Path(__file__).parent / "peers" / "clip_back.py"
BACK_PORT = 1_234  # clip back cannot choose a free port itself


@dataclass(frozen=True, slots=True)
class Corpus:
    """A store and its versions.

    Attributes:
        store: its folder.
        versions: two versions of nearly the same size.
        sources: the arguments of a build that adds 1,000 vectors.
    """

    store: Path
    versions: tuple[int, int]
    sources: tuple[str, ...]


def text(rng: random.Random) -> str:
    return "a " + " ".join(rng.choices(WORDS, k=4))


def make(folder: Path, images: int) -> Corpus:
    """Build two versions: drawn scenes and vectors, then ten more vectors."""
    store = folder / "store"
    vectors = clustered(images - SCENES + 1_010, 256)
    sources = ["--source", f"scenes:{SCENES}"]
    for name, start, end in (
        ("most", 0, images - SCENES),
        ("ten", images - SCENES, images - SCENES + 10),
        ("later", images - SCENES + 10, len(vectors)),
    ):
        (folder / name).mkdir()
        np.save(folder / name / "vectors.npy", vectors[start:end])
        sources += ["--source", f"embeddings:{folder / name}"]
        if name != "later":
            target = ["--recall-target", RECALL]
            run([*MMINDEX, "build", "--store", store, "--model", "embedded", *sources, *target])
    return Corpus(store, (1, 2), tuple(sources))


def ask_text(session: aiohttp.ClientSession, words: str, k: int) -> Any:
    return session.get("/api/v1/search", params={"q": words, "k": str(k)})


def ask_back(session: aiohttp.ClientSession, words: str, k: int) -> Any:
    body = {"text": words, "modality": "image", "num_images": k, "indice_name": "x"}
    return session.post("/knn-service", json=body)


async def client(
    request: Callable[[random.Random], Any],
    over: asyncio.Event,
    seed: int,
    out: list[tuple[str, float]],
) -> None:
    rng = random.Random(seed)  # the load is not a secret
    while not over.is_set():
        started = time.perf_counter()
        async with request(rng) as answer:
            await answer.read()
            later = answer.status == 503 and "retry-after" in answer.headers
            status = str(answer.status) if later or answer.status != 503 else "503 without time"
            out.append((status, time.perf_counter() - started))
        if later:
            await asyncio.sleep(1)


async def publish(corpus: Corpus, seconds: float) -> Counter[str]:
    """Publish a version every ten seconds by rollbacks, and then one by a build."""
    published: Counter[str] = Counter()
    start = time.monotonic()
    for count in range(1, int(seconds // EVERY_S) + 1):
        await asyncio.sleep(max(0.0, start + count * EVERY_S - time.monotonic()))
        await _publish(
            ["rollback", "--store", corpus.store, corpus.versions[~count % 2]], published
        )
    await _publish(["build", "--store", corpus.store, *corpus.sources], published)
    return published


async def _publish(command: list[Any], published: Counter[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *MMINDEX, *map(str, command), stdout=subprocess.DEVNULL
    )
    code = await process.wait()
    published[f"{command[0]}s" if code == 0 else f"failed {command[0]}s"] += 1


async def load(
    base: str,
    request: Callable[[aiohttp.ClientSession, random.Random], Any],
    options: argparse.Namespace,
    corpus: Corpus | None = None,
) -> dict[str, Any]:
    """Let all clients send requests for the given time, and return the figures.

    Args:
        base: address of the server.
        request: makes a request.
        options: clients and seconds.
        corpus: the store that publishes versions meanwhile.
    """
    out: list[tuple[str, float]] = []
    over = asyncio.Event()
    connector, limit = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(120)
    start = time.monotonic()
    async with (
        aiohttp.ClientSession(base, connector=connector, timeout=limit) as session,
        asyncio.TaskGroup() as clients,
    ):
        for seed in range(options.clients):
            clients.create_task(client(partial(request, session), over, seed, out))
        if corpus is None:
            await asyncio.sleep(options.seconds)
            published: Counter[str] = Counter()
        else:
            published = await publish(corpus, options.seconds)
        over.set()
    took = time.monotonic() - start
    times = sorted(seconds for status, seconds in out if status == "200")
    return {
        "requests/s": len(times) / took,
        "p50 ms": 1000 * statistics.median(times),
        "p99 ms": 1000 * times[int(0.99 * len(times))],
        "seconds": took,
        "statuses": _listed(Counter(status for status, _ in out)),
        "published": _listed(published),
    }


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in counts.items()) or "-"


async def answers(
    base: str,
    ask: Callable[[aiohttp.ClientSession, str, int], Any],
    queries: list[str],
    ids: Callable[[Any], list[str]],
) -> list[set[str]]:
    """Return the ids that a server finds for each query."""
    async with aiohttp.ClientSession(base) as session:
        found = []
        for words in queries:
            async with ask(session, words, K) as answer:
                found.append(set(ids(await answer.json())))
    return found


@contextmanager
def served(corpus: Corpus, cache: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run ``mmindex serve``; yields its address and process."""
    command = [*MMINDEX, "serve", "--store", corpus.store, "--port", "0", "--cache", cache]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1], psutil.Process(process.pid)
        process.send_signal(signal.SIGTERM)
        if process.wait(20):
            raise RuntimeError(f"mmindex serve ended with exit code {process.returncode}")


@contextmanager
def clip_back(python: Path, folder: Path, embeddings: Path) -> Iterator[str]:
    """Index the embeddings with clip-retrieval and run ``clip back``; yields its address."""
    index, log = folder / "peer-index", folder / "clip_back.log"
    run(
        [
            *(python.parent / "clip-retrieval", "index", "--embeddings_folder", embeddings),
            *("--index_folder", index, "--max_index_memory_usage", "4G"),
            *("--current_memory_available", "8G"),
        ]
    )
    command = [python, BACK, index, data_dir() / "models" / "scenes-clip", str(BACK_PORT)]
    base = f"http://127.0.0.1:{BACK_PORT}"
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            _wait(base, process, log)
            yield base
        finally:
            process.kill()


def _wait(base: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"clip back ended:\n{log.read_text()[-2000:]}")
        try:
            httpx.get(f"{base}/indices-list").raise_for_status()
        except httpx.TransportError:
            time.sleep(1)
        else:
            return
    raise RuntimeError(f"clip back does not answer:\n{log.read_text()[-2000:]}")


def memory(process: psutil.Process) -> int:
    """Return the MiB of a process and its children."""
    return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]) >> 20


def exact(store: Path, queries: list[str]) -> list[set[str]]:
    """Return the ids of the best images for each query by exact search."""
    with mmindex.open(store) as index:
        ids, vectors = index.vectors("image")
        scores = index.embed(texts=queries) @ vectors.astype(np.float32).T
    best = np.argpartition(-scores, K, axis=1)[:, :K]
    return [{ids[row] for row in rows} for rows in best]


def export(store: Path, folder: Path) -> Path:
    """Export the published version for clip-retrieval, and return the folder of the export."""
    out = folder / "embeddings"
    run([*MMINDEX, "export", "--store", store, "--out", out, "--layout", "clip-retrieval"])
    return out


def recall(found: list[set[str]], right: list[set[str]]) -> float:
    return statistics.mean(len(a & b) / K for a, b in zip(found, right, strict=True))


def measure(corpus: Corpus, folder: Path, options: argparse.Namespace, report: Report) -> None:
    rng = random.Random(7)
    queries = [text(rng) for _ in range(QUERIES)]
    right = exact(corpus.store, queries)
    exported = export(corpus.store, folder)  # of the version that these right answers are from
    rows = []
    with served(corpus, folder / "cache") as (base, process):
        where = {"q": "boat", "k": "1000", "where": "starts_with(image_id, 'scenes')"}
        scenes = httpx.get(f"{base}api/v1/search", params=where, timeout=120).json()["hits"]
        names = [hit["id"] for hit in scenes]

        def ids(answer: Any) -> list[str]:
            return [hit["id"] for hit in answer["hits"]]

        reached = recall(asyncio.run(answers(base, ask_text, queries, ids)), right)

        def texts(session: aiohttp.ClientSession, rng: random.Random) -> Any:
            return ask_text(session, text(rng), HITS)

        def thumbnails(session: aiohttp.ClientSession, rng: random.Random) -> Any:
            return session.get(f"/api/v1/images/{rng.choice(names)}/thumbnail")

        def mix(session: aiohttp.ClientSession, rng: random.Random) -> Any:
            return (thumbnails if rng.random() < 0.7 else texts)(session, rng)

        for kind in (texts, thumbnails, mix):
            before = memory(process)
            changing = corpus if kind is mix else None
            figures = asyncio.run(load(base, kind, options, changing))
            rows.append({
                "what": f"mmindex serve: {kind.__name__}",
                "recall@10": reached if kind is texts else None,
                **figures,
                "MiB before": before,
                "MiB after": memory(process),
            })  # fmt: skip
    python = peer("clip-retrieval")
    if python is not None:
        rows.append(peer_row(python, exported, folder, options, queries, right))
    report.table(f"{options.images} images, {options.clients} clients", rows)


def peer_row(
    python: Path,
    exported: Path,
    folder: Path,
    options: argparse.Namespace,
    queries: list[str],
    right: list[set[str]],
) -> dict[str, Any]:
    """Measure ``clip back`` with exported vectors."""
    tables = sorted((exported / "metadata").glob("*.parquet"))
    names = [name for path in tables for name in pq.read_table(path)["image_id"].to_pylist()]
    with clip_back(python, folder, exported) as base:

        def ids(answer: Any) -> list[str]:
            return [names[hit["id"]] for hit in answer]

        reached = recall(asyncio.run(answers(base, ask_back, queries, ids)), right)

        def texts(session: aiohttp.ClientSession, rng: random.Random) -> Any:
            return ask_back(session, text(rng), HITS)

        figures = asyncio.run(load(base, texts, options))
    return {"what": "clip back: texts", "recall@10": reached, **figures}


def main() -> None:
    parser = options_of(__doc__)
    full = os.environ.get("BENCH") == "full"
    parser.add_argument("--images", type=int, default=100_000 if full else 10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60 if full else 15)
    options = parser.parse_args()
    report = Report("serve", options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure(make(folder, options.images), folder, options, report)


if __name__ == "__main__":
    main()
