"""Requests per second of `mmindex serve`: texts, thumbnails and a mix, while versions change.

The store has 2,000 drawn scenes, and synthetic vectors without files. The command runs in its own
process. Clients send one request after the other: texts of four words, each sent once, and
thumbnails of the scenes. During the mix, a rollback publishes a new version every ten seconds.
Every response except 200, and 503 with Retry-After, counts as an error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import httpx
import psutil

WORDS = [
    "red",
    "blue",
    "green",
    "boat",
    "house",
    "tree",
    "cat",
    "dog",
    "sea",
    "snow",
    "night",
    "day",
    "sun",
    "moon",
    "two",
    "three",
]


def text(rng: random.Random) -> str:
    return "a " + " ".join(rng.choices(WORDS, k=4))


async def client(
    session: aiohttp.ClientSession, kind: str, ends: float, ids: list[str], seed: int, out: list
) -> None:
    rng = random.Random(seed)  # a load, no secret
    while time.monotonic() < ends:
        thumb = kind == "thumbnails" or (kind == "mix" and rng.random() < 0.7)
        started = time.perf_counter()
        address, params = "/api/v1/search", {"q": text(rng), "k": "20"}
        if thumb:
            address, params = f"/api/v1/images/{rng.choice(ids)}/thumbnail", {}
        async with session.get(address, params=params) as answer:
            await answer.read()
            later = answer.status == 503 and "retry-after" in answer.headers
            out.append((str(answer.status) if not later else "503", time.perf_counter() - started))
        if later:
            await asyncio.sleep(1)


async def publish(run: list[str], store: Path, ends: float) -> int:
    """Roll back to the other of two versions every ten seconds, which publishes a version."""
    published = 0
    while time.monotonic() + 10 < ends:
        await asyncio.sleep(10)
        command = [*run, "rollback", "--store", str(store), str(2 + published % 2)]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        published += await process.wait() == 0
    return published


async def load(base: str, kind: str, clients: int, seconds: float, ids: list[str], run, store):
    out: list[tuple[str, float]] = []
    ends = time.monotonic() + seconds
    changes = publish(run, store, ends) if kind == "mix" else asyncio.sleep(0, 0)
    async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(limit=0)) as session:
        asked = [client(session, kind, ends, ids, seed, out) for seed in range(clients)]
        published, *_ = await asyncio.gather(changes, *asked)
    return out, published


def make(run: list[str], store: Path, images: int) -> None:
    """Make two versions of nearly the same size with real images: numbers 2 and 3."""
    from benchkit.stores import widen

    build = [*run, "build", "--store", store, "--source", f"scenes:{min(images, 2_000)}"]
    subprocess.run(build, check=True)
    for n in (images, images + 10):
        widen(store, n)


def memory(process: psutil.Process) -> int:
    return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    full = os.environ.get("BENCH") == "full"
    parser.add_argument("--images", type=int, default=100_000 if full else 10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60 if full else 15)
    parser.add_argument("--store", type=Path, help="a store that is there already")
    given = parser.parse_args()
    run = [sys.executable, "-m", "mmindex_cli"]
    with tempfile.TemporaryDirectory() as folder:
        store = given.store or Path(folder) / "store"
        if given.store is None:
            make(run, store, given.images)
        serve = [*run, "serve", "--store", store, "--port", "0", "--cache", f"{folder}/cache"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as process:
            base = process.stdout.readline().split()[-1]
            where = {"q": "boat", "k": "1000", "where": "starts_with(image_id, 'scenes')"}
            answer = httpx.get(f"{base}api/v1/search", params=where, timeout=120).json()
            ids = [hit["id"] for hit in answer["hits"]]
            watched = psutil.Process(process.pid)
            for kind in ("texts", "thumbnails", "mix"):
                before = memory(watched)
                arguments = (base, kind, given.clients, given.seconds, ids, run, store)
                out, published = asyncio.run(load(*arguments))
                times = sorted(seconds for status, seconds in out if status == "200")
                record = {
                    "kind": kind,
                    "clients": given.clients,
                    "requests_per_second": round(len(times) / given.seconds, 1),
                    "p50_ms": round(1000 * statistics.median(times), 1),
                    "p99_ms": round(1000 * times[int(0.99 * len(times))], 1),
                    "statuses": dict(Counter(status for status, _ in out)),
                    "versions_published": published,
                    "memory_mb": [before >> 20, memory(watched) >> 20],
                }
                print(json.dumps(record), flush=True)
            process.send_signal(signal.SIGTERM)
            print(json.dumps({"exit_code": process.wait(20)}))


if __name__ == "__main__":
    main()
