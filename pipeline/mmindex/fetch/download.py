"""Download the archives of a corpus. Downloads resume, and are verified before use."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiohttp.abc import AbstractResolver
from tqdm import tqdm
from yarl import URL

from mmindex.core.config import FetchConfig
from mmindex.core.errors import DataError, UsageError, os_errors
from mmindex.core.progress import counter, get_logger
from mmindex.fetch.addresses import parse_url
from mmindex.fetch.client import Client
from mmindex.fetch.crawler import first_failure
from mmindex.fetch.outcome import FetchError
from mmindex.fetch.partial import Record, load_record, require_space
from mmindex.fetch.transfer import Transfer
from mmindex.store.layout import Layout
from mmindex.store.objects import read_chunks
from mmindex.store.publish import make_directory, write_file


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to fetch.

    Attributes:
        name: its name on disk.
        urls: its addresses, best first.
        size_bytes: its size, if known.
        sha256: hex digest, if known.
        md5: hex digest, if known.
    """

    name: str
    urls: tuple[str, ...]
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None


def download_files(
    layout: Layout,
    folder: Path,
    files: Sequence[RemoteFile],
    settings: FetchConfig,
    resolver: AbstractResolver | None = None,
) -> list[Path]:
    """Ensure that files are present, complete and verified; fetch several at once.

    A verified file is not read again unless its size or time changed. After a failure, the next run
    continues with the bytes that have arrived.

    Args:
        layout: the store; its writer lock must be held.
        folder: the destination, below the store's downloads folder.
        files: the files to fetch.
        settings: mirrors, limits, and whether checksums must be known.
        resolver: the resolver; the operating system's by default.

    Returns:
        Their paths, in the given order.

    Raises:
        NetworkError: no mirror has it, or none can be reached.
        BusyError: the server asks to wait longer than the budget.
        DataError: size or checksum differ, or the response is a web page; nothing of it is kept.
        StorageError: there is not enough space, or writing failed.
        UsageError: an address is invalid.
    """
    _refuse_unknown(files, settings)
    for needed in (folder, layout.staging_dir):  # training works without a store
        make_directory(needed)
    missing = [file for file in files if not _is_ready(layout, folder, file)]
    if missing:
        _require_space(folder, missing)
        try:
            asyncio.run(_download(layout, folder, missing, settings, resolver))
        except BaseExceptionGroup as group:
            raise first_failure(group) from group
    return [folder / file.name for file in files]


def _is_ready(layout: Layout, folder: Path, file: RemoteFile) -> bool:
    """Return whether the file is present and correct; without a matching record, verify it now.

    Raises:
        DataError: it is present, but differs from what its publisher serves.
    """
    path = folder / file.name
    if not path.is_file():
        return False
    with os_errors(path):
        status = path.stat()
    record = load_record(_record_path(path))
    if (
        record is None
        or (record.bytes, record.mtime_ns) != (status.st_size, status.st_mtime_ns)
        or file.sha256 not in (None, record.sha256)
        or file.md5 not in (None, record.md5)
    ):
        checked = _check(path, file, "", "move it to another folder, and it will be downloaded")
        write_file(layout, _record_path(path), msgspec.json.encode(checked))
    return True


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _refuse_unknown(files: Sequence[RemoteFile], settings: FetchConfig) -> None:
    for file in files:
        if settings.require_checksum and file.sha256 is None and file.md5 is None:
            raise DataError(
                f"{file.name}: no checksum is known, and `require_checksum` refuses such files",
                "remove `require_checksum` to record the sha256 of the first download",
            )


def _require_space(folder: Path, files: Sequence[RemoteFile]) -> None:
    needed = 0
    for file in files:
        part = folder / f"{file.name}.part"
        have = part.stat().st_size if part.is_file() else 0
        needed += max(0, (file.size_bytes or 0) - have)
    require_space(folder, needed)


async def _download(
    layout: Layout,
    folder: Path,
    files: Sequence[RemoteFile],
    settings: FetchConfig,
    resolver: AbstractResolver | None,
) -> None:
    known = [file.size_bytes for file in files]
    total = sum(size for size in known if size) if all(known) else None
    slots = asyncio.Semaphore(settings.parallel_downloads)
    names = ", ".join(file.name for file in files)
    with counter(total=total, label=f"fetch {names}", unit="B") as progress:
        async with Client(settings, resolver) as client, asyncio.TaskGroup() as group:
            for file in files:
                task = _Download(layout, folder, file, settings)
                group.create_task(task.run(client, slots, progress))


class _Download:
    """One download in progress."""

    def __init__(
        self, layout: Layout, folder: Path, file: RemoteFile, settings: FetchConfig
    ) -> None:
        self._layout = layout
        self._path = folder / file.name
        self._file = file
        self._settings = settings

    async def run(self, client: Client, slots: asyncio.Semaphore, progress: tqdm) -> None:  # type: ignore[type-arg]  # generic in its stubs only
        urls = [_mirrored(url, self._settings.base_url) for url in self._file.urls]
        async with slots:
            transfer = Transfer(self._layout, self._path, self._settings, progress)
            transfer.expected_bytes = self._file.size_bytes
            url = await transfer.fetch(client, urls)
            await asyncio.to_thread(self._finish, transfer, str(url))

    def _finish(self, transfer: Transfer, url: str) -> None:
        """Verify the complete file on disk and rename it."""
        try:
            record = _check(
                transfer.partial, self._file, url, "run this again to download it again"
            )
        except DataError:
            transfer.discard()
            raise
        if record.checked == "first use":
            get_logger("crawl").warning(
                "no checksum is known: the checksum of this download is recorded and trusted from "
                "now on",
                file=self._file.name,
                sha256=record.sha256,
            )
        transfer.publish()
        with os_errors(self._path):
            mtime_ns = self._path.stat().st_mtime_ns
        record = msgspec.structs.replace(record, mtime_ns=mtime_ns)
        write_file(self._layout, _record_path(self._path), msgspec.json.encode(record))


def _mirrored(text: str, base_url: str | None) -> URL:
    """Return the address with the mirror's scheme, host and leading path.

    Raises:
        UsageError: it is invalid.
    """
    try:
        url = parse_url(text)
        if base_url is None:
            return url
        return parse_url(base_url.rstrip("/") + url.raw_path_qs)
    except FetchError as error:
        raise UsageError(f"{base_url or text}: {error.detail}") from error


def _check(path: Path, file: RemoteFile, url: str, hint: str) -> Record:
    """Hash a file and compare size and checksums with the known ones.

    Raises:
        DataError: size or checksum differ.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with os_errors(path), path.open("rb") as opened:
        for chunk in read_chunks(opened):
            sha256.update(chunk)
            md5.update(chunk)
        status = path.stat()
    if file.size_bytes not in (None, status.st_size):
        raise DataError(f"{path}: expected {file.size_bytes} bytes, got {status.st_size}", hint)
    for name, known, found in (
        ("sha256", file.sha256, sha256.hexdigest()),
        ("md5", file.md5, md5.hexdigest()),
    ):
        if known is not None and known != found:
            raise DataError(f"{path}: expected {name} {known}, got {found}", hint)
    checked = "sha256" if file.sha256 else "md5" if file.md5 else "first use"
    return Record(
        url, status.st_size, status.st_mtime_ns, sha256.hexdigest(), md5.hexdigest(), checked
    )
