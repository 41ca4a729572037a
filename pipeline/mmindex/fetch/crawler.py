"""Fetch all addresses of a list into shards, many hosts in parallel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from aiohttp.abc import AbstractResolver
from tqdm import tqdm

from mmindex.core.config import FetchConfig
from mmindex.core.errors import StorageError
from mmindex.core.progress import counter
from mmindex.fetch.addresses import parse_url
from mmindex.fetch.client import Client
from mmindex.fetch.images import Fetched, ImageFetcher
from mmindex.fetch.ledger import Ledger
from mmindex.fetch.outcome import FetchStatus
from mmindex.fetch.politeness import Politeness
from mmindex.fetch.robots import Robots
from mmindex.fetch.shards import ShardWriter, list_shards
from mmindex.store.layout import Layout

# Hosts in progress at the same time. A host that is waiting has no connection, so there are more
# hosts than connections; each takes a few kilobytes.
_ACTIVE_HOSTS: Final = 512
# getaddrinfo blocks a thread; the default of six would delay a list of many hosts.
_THREADS: Final = 32
# A slow crawl closes a shard after this share of its time so far: a few shards for each doubling of
# the time, instead of one every half minute for days.
_SHARD_SHARE: Final = 0.05


class ShardSink:
    """Writes fetched images to shards.

    Args:
        layout: the store.
        folder: the folder of the list's shards.
        ledger: records the location of every image.
        settings: size and age at which a shard is closed.
    """

    def __init__(self, layout: Layout, folder: Path, ledger: Ledger, settings: FetchConfig) -> None:
        self._layout = layout
        self._folder = folder
        self._ledger = ledger
        self._settings = settings
        self._lock = asyncio.Lock()
        self._number = (list_shards(folder) or [-1])[-1] + 1
        self._shard: ShardWriter | None = None
        self._begun = self._opened = time.monotonic()

    async def add(self, fetched: Fetched) -> None:
        """Store a result, for forgotten bytes only their status; wait while writing is behind.

        Raises:
            StorageError: the disk is full.
        """
        if fetched.key and self._ledger.forgotten.has_key(fetched.key):
            fetched = replace(fetched, status=FetchStatus.FORGOTTEN, key="", data=b"")
        async with self._lock:
            if self._shard is None:
                self._shard = ShardWriter(self._layout, self._folder, self._number)
                self._opened = time.monotonic()
            shard, at_ms = self._shard, int(time.time() * 1000)
            stored = fetched.status is FetchStatus.STORED
            kept = stored and self._ledger.keep(fetched.key, self._number, shard.rows)
            self._ledger.add_fetched(fetched, at_ms)
            if shard.add(fetched, kept, at_ms):
                await asyncio.to_thread(shard.write_group)
            if shard.size_bytes >= self._settings.shard_bytes or self._is_old():
                await asyncio.to_thread(self._publish)

    def _is_old(self) -> bool:
        now = time.monotonic()
        age = max(self._settings.shard_seconds, _SHARD_SHARE * (now - self._begun))
        return now - self._opened >= age

    def _publish(self) -> None:
        if self._shard is not None:
            shard, self._shard = self._shard, None
            with shard:
                shard.publish()
            self._number += 1

    def close(self) -> None:
        """Publish the last shard. Call it once, after the last :meth:`add`."""
        self._publish()

    def discard(self) -> None:
        """Drop the current shard, which could not be written."""
        if self._shard is not None:
            self._shard.__exit__(None, None, None)
            self._shard = None


class _Crawl:
    """One run over the addresses that the ledger has planned."""

    def __init__(
        self,
        ledger: Ledger,
        sink: ShardSink,
        fetcher: ImageFetcher,
        politeness: Politeness,
        settings: FetchConfig,
    ) -> None:
        self._ledger = ledger
        self._sink = sink
        self._fetcher = fetcher
        self._politeness = politeness
        self._settings = settings

    async def run(self, progress: tqdm) -> None:  # type: ignore[type-arg]  # generic in its stubs only
        active = asyncio.Semaphore(_ACTIVE_HOSTS)
        async with asyncio.TaskGroup() as hosts:
            for host, count in self._ledger.hosts():
                await active.acquire()
                task = hosts.create_task(self._host(host, count, progress))
                task.add_done_callback(lambda _: active.release())

    async def _host(self, host: str, count: int, progress: tqdm) -> None:  # type: ignore[type-arg]
        urls = self._ledger.todo(host)
        lanes = min(count, self._settings.per_host_concurrency)
        async with asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(self._lane(urls, progress))
        if host:
            self._politeness.leave(parse_url(f"http://{host}/"))

    async def _lane(self, urls: Iterator[str], progress: tqdm) -> None:  # type: ignore[type-arg]
        """Fetch over one connection to a host; lanes share an iterator, so none has to wait."""
        for url in urls:
            slot = self._fetcher.slot()
            try:
                await self._sink.add(await self._fetcher.fetch(url, slot))
            finally:
                slot.release()
            progress.update(1)


async def _crawl(
    ledger: Ledger,
    sink: ShardSink,
    settings: FetchConfig,
    max_bytes: int,
    resolver: AbstractResolver | None,
) -> None:
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch")
    asyncio.get_running_loop().set_default_executor(threads)
    with counter(total=ledger.planned, label="fetch", unit="url") as progress:
        async with Client(settings, resolver) as client:
            politeness = Politeness(settings, Robots(client, settings.image_timeout_s))
            fetcher = ImageFetcher(client, politeness, settings, max_bytes)
            await _Crawl(ledger, sink, fetcher, politeness, settings).run(progress)


def crawl_addresses(
    layout: Layout,
    folder: Path,
    ledger: Ledger,
    settings: FetchConfig,
    max_bytes: int,
    resolver: AbstractResolver | None = None,
) -> None:
    """Fetch every planned address and store the results in new shards.

    If a signal or an error stops the run, the results so far are stored too.

    Args:
        layout: the store; its writer lock must be held.
        folder: the folder of the list's shards.
        ledger: the rows, with :meth:`Ledger.plan` done.
        settings: limits and permissions.
        max_bytes: larger images are refused.
        resolver: the resolver; the operating system's by default.

    Raises:
        StorageError: the disk is full.
    """
    sink = ShardSink(layout, folder, ledger, settings)
    try:
        asyncio.run(_crawl(ledger, sink, settings, max_bytes, resolver))
    except BaseExceptionGroup as group:
        failure = first_failure(group)
        if isinstance(failure, StorageError):
            sink.discard()
        raise failure from group
    finally:
        sink.close()


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first actual error in nested exception groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
