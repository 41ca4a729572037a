"""Lists of image URLs: download missing images, then read the stored ones.

All lists of a store share one pool of shards (``downloads/fetched/``), keyed by URL. If a list is
renamed, sorted or extended, or a second list has the same URLs, nothing is downloaded twice.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from aiohttp.abc import AbstractResolver

from mmindex.core.config import FetchConfig
from mmindex.core.errors import BusyError, InternalError, NoInputError
from mmindex.core.progress import get_logger
from mmindex.core.records import (
    Detail,
    Ignored,
    MetadataValue,
    NoteKind,
    Reason,
    Rejected,
    Skip,
    SourceEvent,
    SourceItem,
)
from mmindex.fetch.crawler import crawl_addresses
from mmindex.fetch.ledger import Ledger, ListRow, RowState
from mmindex.fetch.outcome import FetchStatus, reason_of
from mmindex.fetch.shards import BYTES_COLUMN, list_shards, read_states, shard_path
from mmindex.media.files import stamp_of
from mmindex.media.parquet_cells import read_cell, uri_of_cell
from mmindex.sources.annotations import notes
from mmindex.sources.base import Kind, Needs, Place, Request
from mmindex.sources.url_rows import read_rows
from mmindex.store.forgotten import NOTHING, Forgotten
from mmindex.store.layout import Layout
from mmindex.store.publish import make_directory, write_file

_FOLDER: Final = "fetched"
_REPORT: Final = "last-fetch.json"
_REPORTED_HOSTS: Final = 200
_LOGGED_HOSTS: Final = 5
# As for the quarantine: a few throttled rows do not stop a run.
_THROTTLED_FLOOR: Final = 10


@dataclass(frozen=True, slots=True)
class UrlOptions:
    """The options for reading a URL list.

    Attributes:
        layout: the store; its writer lock must be held.
        fetch: the network settings.
        max_bytes: the size limit of an image.
        max_throttled: the share of rows that can be left for a later run because their host asks
            to wait; above it, the run stops.
        forgotten: rows with these ids and URLs are ignored, and such bytes are not kept.
        resolver: resolves host names; by default, that of the operating system.
    """

    layout: Layout
    fetch: FetchConfig
    max_bytes: int
    max_throttled: float = 0.01
    forgotten: Forgotten = NOTHING
    resolver: AbstractResolver | None = None


class FetchSummary(msgspec.Struct, frozen=True):
    """The result of one run for one list; ``downloads/fetched/last-fetch.json``.

    Attributes:
        list: the file name.
        rows: the number of rows.
        asked: the number of URLs requested in this run.
        seconds: the wall time of the requests.
        by_status: counts by status.
        by_host: counts by status for each host, most frequent first.
        known: counts by status of all URLs in the list.
    """

    list: str
    rows: int
    asked: int
    seconds: float
    by_status: dict[str, int]
    by_host: dict[str, dict[str, int]]
    known: dict[str, int]

    @property
    def success_rate(self) -> float:
        """The share of requested URLs whose image is kept; 1 if none was requested."""
        return self.by_status.get(FetchStatus.STORED, 0) / self.asked if self.asked else 1.0


def read_urls(request: Request) -> Iterator[SourceEvent]:
    """Download missing images and stream the rows of a list: see :func:`url_list_events`."""
    given = request.options
    options = UrlOptions(
        given.layout, given.fetch, given.max_bytes, given.max_throttled, given.forgotten
    )
    return url_list_events(request.path, request.split, options, request.ids)


def url_list_events(
    path: Path, split: str | None, options: UrlOptions, ids: str = "urls"
) -> Iterator[SourceEvent]:
    """Download missing images and stream the rows of a list in order.

    Rows with the same URL are one image with all their captions; the later rows count as ignored.
    The id of an image is the column ``id`` or, without one, the first 20 hex digits of the sha256
    of the URL.

    Args:
        path: csv, tsv, jsonl or parquet, see :func:`mmindex.sources.url_rows.read_rows`.
        split: read only rows with this value in the column ``split``; None for all.
        options: the store and the limits.
        ids: the prefix of the ids in the list of forgotten items.

        Raises:
        NoInputError: there is no such file, or no row with this split.
        DataError: the list is damaged.
        BusyError: hosts ask to wait for longer than the limit; downloaded images are kept.
        StorageError: the disk is full.
    """
    folder = options.layout.downloads_dir / _FOLDER
    for needed in (folder, options.layout.staging_dir):  # training works without a store
        make_directory(needed)
    with Ledger(options.layout, options.forgotten) as ledger:
        listed = _Listed(ids, options.forgotten)
        rows = ledger.add_rows(listed.without_forgotten(_of_split(path, split)))
        if split is not None and not rows + listed.forgotten:
            raise NoInputError(f"{path}: no row with split {split!r}", "check its column `split`")
        for number in list_shards(folder):
            ledger.add_states(number, read_states(folder, number))
        summary = _fetch(path, rows, folder, ledger, options)
        _report(options.layout, folder, summary)
        _stop_if_throttled(summary, options)
        yield Detail("fetch", msgspec.to_builtins(summary))
        if listed.forgotten:
            yield Ignored(Skip.FORGOTTEN, listed.forgotten)
        yield from _events(folder, ledger, options.max_bytes)
        yield from notes(
            {NoteKind(f"addresses_{status}"): count for status, count in summary.known.items()}
        )


class _Listed:
    """Removes and counts forgotten rows before anything is requested."""

    def __init__(self, ids: str, known: Forgotten) -> None:
        self._ids = ids
        self._known = known
        self.forgotten = 0

    def without_forgotten(self, rows: Iterable[ListRow]) -> Iterator[ListRow]:
        if not self._known:
            yield from rows
            return
        for row in rows:
            image_id = f"{self._ids}/{_image_id(row)}"
            if self._known.has_address(row.url) or self._known.has_id(image_id):
                self.forgotten += 1
            else:
                yield row


def _image_id(row: ListRow) -> str:
    return row.name or hashlib.sha256(row.url.encode()).hexdigest()[:20]


def _of_split(path: Path, split: str | None) -> Iterator[ListRow]:
    return (row for row in read_rows(path) if split is None or row.split == split)


def _fetch(
    path: Path, rows: int, folder: Path, ledger: Ledger, options: UrlOptions
) -> FetchSummary:
    asked = ledger.plan(options.fetch)
    begun = time.perf_counter()
    if asked:
        crawl_addresses(
            options.layout, folder, ledger, options.fetch, options.max_bytes, options.resolver
        )
    by_host: dict[str, dict[str, int]] = {}
    for host, status, count in ledger.host_counts(_REPORTED_HOSTS):
        by_host.setdefault(host, {})[status] = count
    return FetchSummary(
        list=path.name,
        rows=rows,
        asked=asked,
        seconds=round(time.perf_counter() - begun, 3),
        by_status=ledger.counts(fresh=True),
        by_host=by_host,
        known=ledger.counts(fresh=False),
    )


def _report(layout: Layout, folder: Path, summary: FetchSummary) -> None:
    log = get_logger("crawl")
    if not summary.asked:
        log.info("nothing to download", list=summary.list, rows=summary.rows)
        return
    write_file(layout, folder / _REPORT, msgspec.json.format(msgspec.json.encode(summary)))
    log.info(
        "fetched",
        list=summary.list,
        asked=summary.asked,
        success_rate=summary.success_rate,
        per_second=summary.asked / max(summary.seconds, 1e-9),
        **summary.by_status,
    )
    failing = [
        (host, {name: n for name, n in counts.items() if name != FetchStatus.STORED}, counts)
        for host, counts in summary.by_host.items()
    ]
    failing.sort(key=lambda entry: -sum(entry[1].values()))
    for host, failures, counts in failing[:_LOGGED_HOSTS]:
        if failures:
            kept = counts.get(FetchStatus.STORED, 0)
            log.warning("host", host=host or "(invalid URLs)", stored=kept, **failures)


def _stop_if_throttled(summary: FetchSummary, options: UrlOptions) -> None:
    throttled = summary.by_status.get(FetchStatus.THROTTLED, 0)
    if throttled > max(_THROTTLED_FLOOR, int(options.max_throttled * summary.rows)):
        raise BusyError(
            f"{summary.list}: {throttled} of {summary.rows} URLs were postponed: their hosts "
            f"ask to wait for longer than {options.fetch.retry_after_budget_s:g} s",
            "run this again later: downloaded images are kept and not downloaded again",
        )


def _events(folder: Path, ledger: Ledger, max_bytes: int) -> Iterator[SourceEvent]:
    stamps = functools.lru_cache(maxsize=None)(stamp_of)  # one per shard
    for state in ledger.rows():
        row = state.row
        image_id = _image_id(row)
        if state.status is FetchStatus.FORGOTTEN:
            yield Ignored(Skip.FORGOTTEN)
            continue
        if state.place is None:
            suffix = f"~{state.number}" if state.repeats else ""
            yield Rejected(image_id + suffix, row.url, *_why(state))
            continue
        if state.repeats:
            yield Ignored(Skip.REPEATED_ADDRESS)
            continue
        shard, number = state.place
        file = str(shard_path(folder.absolute(), shard))
        metadata: dict[str, MetadataValue] = {**row.metadata, "url": row.url}
        yield SourceItem(
            image_id=image_id,
            uri=uri_of_cell(file, BYTES_COLUMN, number),
            split=row.split,
            captions=row.captions,
            read=functools.partial(read_cell, file, BYTES_COLUMN, number, max_bytes),
            metadata=metadata,
            stamp=stamps(file),
        )


def _why(state: RowState) -> tuple[Reason, str]:
    if state.status is None:
        raise InternalError(f"row {state.number} ({state.row.url}) was never requested")
    detail = f"{state.status}: {state.detail}" if state.detail else str(state.status)
    return reason_of(state.status), detail


KIND: Final = Kind(
    name="urls",
    place=Place.FILE,
    form="FILE[#SPLIT]",
    example="urls:sunsets.csv",
    summary="a list of image URLs (csv, tsv, jsonl, parquet, txt); each is fetched once,"
    " and robots.txt and opt-outs are obeyed",
    read=read_urls,
    needs=lambda *_: Needs("would download the images that are not stored yet"),
)
