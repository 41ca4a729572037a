"""Download one file: mirrors, retries, resumption and a minimum speed."""

from __future__ import annotations

import asyncio
import os
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
from tqdm import tqdm
from yarl import URL

from mmindex.core.config import FetchConfig
from mmindex.core.errors import BusyError, DataError, MmindexError, NetworkError, os_errors
from mmindex.fetch.client import Client, check_status
from mmindex.fetch.outcome import TRANSIENT, FetchError, FetchStatus
from mmindex.fetch.partial import (
    MismatchError,
    Sidecar,
    load_sidecar,
    require_space,
    resume_headers,
    start_of,
    strong_etag,
)
from mmindex.fetch.politeness import backoff_s
from mmindex.store.layout import Layout
from mmindex.store.publish import PartialFile, remove_file, write_file

# The most that is lost if the machine (not the process) crashes.
_SYNC_BYTES: Final = 64 << 20
_READ_BYTES: Final = 1 << 20
_DEFAULT_WAIT_S: Final = 5.0
_JSON_TAIL: Final = 64
_SIGNATURES: Final = {".zip": b"PK", ".gz": b"\x1f\x8b", ".parquet": b"PAR1"}


class Transfer:
    """One download: its partial file and the requests that fill it.

    Args:
        layout: the store.
        path: the file when it is complete; ``PATH.part`` until then.
        settings: limits.
        progress: updated as bytes arrive.
    """

    def __init__(
        self,
        layout: Layout,
        path: Path,
        settings: FetchConfig,
        progress: tqdm,  # type: ignore[type-arg]  # generic in its stubs only
    ) -> None:
        self._layout = layout
        self._target = path
        self._settings = settings
        self._progress = progress
        self._sidecar_path = path.with_name(f"{path.name}.part.json")
        self._sidecar: Sidecar | None = None
        self._waited_s = 0.0
        self._shown = 0
        self.partial = path.with_name(f"{path.name}.part")
        self.expected_bytes: int | None = None

    async def fetch(self, client: Client, urls: Sequence[URL]) -> URL:
        """Fill the partial file from the first of ``urls`` that works; return that URL.

        Raises:
            NetworkError, BusyError, DataError, StorageError: as :func:`download_files`.
        """
        failure: MmindexError | None = None
        for url in urls:
            try:
                await self._from_mirror(client, url)
            except (NetworkError, DataError, BusyError) as error:
                # Of several failures, keep the most informative: wrong data, then "wait".
                if failure is None or not isinstance(failure, DataError | BusyError):
                    failure = error
            else:
                return url
        raise failure or NetworkError(f"{self._target.name}: no URL to download it from")

    async def _from_mirror(self, client: Client, url: URL) -> None:
        """Retry one server as long as the download makes progress."""
        failed = 0
        while True:
            before = self._good_bytes(url)
            if self._sidecar is not None and 0 < self._sidecar.length == before:
                return  # the last run stopped between the last byte and the check
            try:
                await self._request(client, url)
                return
            except MismatchError:
                self.discard()
                failed += 1
                if failed > self._settings.retries:
                    raise NetworkError(
                        f"{url}: the server never returns the requested range"
                    ) from None
            except FetchError as error:
                failed = 0 if self._good_bytes(url) > before else failed + 1
                await self._wait(url, error, failed)

    def _good_bytes(self, url: URL) -> int:
        self._sidecar = load_sidecar(self._sidecar_path, self.partial)
        headers = resume_headers(self._sidecar, str(url))
        return self._sidecar.bytes if self._sidecar is not None and headers else 0

    async def _wait(self, url: URL, error: FetchError, failed: int) -> None:
        """Pause before the next attempt.

        Raises:
            BusyError, NetworkError: there is no further attempt.
        """
        if error.status is FetchStatus.THROTTLED:
            asked = _DEFAULT_WAIT_S if error.retry_after_s is None else error.retry_after_s
            asked = max(asked, 1.0)
            self._waited_s += asked
            if self._waited_s > self._settings.retry_after_budget_s:
                raise BusyError(
                    f"{url}: {error.detail}: asks to wait {asked:g} s",
                    "run this again later: downloaded data is kept",
                ) from error
            await asyncio.sleep(asked)
            return
        if error.status not in TRANSIENT or failed > self._settings.retries:
            raise NetworkError(f"{url}: {error.detail}", _hint(error.status)) from error
        if failed:
            await asyncio.sleep(backoff_s(self._settings, failed))

    async def _request(self, client: Client, url: URL) -> None:
        """Send one request and receive its body.

        Raises:
            MismatchError: the response does not continue the partial file.
            FetchError: it fails; bytes that can be continued are kept.
        """
        asked_for = self._sidecar
        headers = resume_headers(asked_for, str(url))
        async with client.get(url, headers=headers) as response:
            try:
                if response.status == 416 and headers:
                    raise MismatchError("416 for a range that was available before")
                check_status(response)
                self._refuse_page(response)
                offset, length = start_of(response, asked_for if headers else None)
                self._check_length(url, length, offset)
                sidecar = Sidecar(str(url), strong_etag(response), length, offset)
                if offset and asked_for is not None:
                    sidecar = msgspec.structs.replace(asked_for, length=length)
                await self._receive(response, sidecar)
            except (MismatchError, FetchError, MmindexError):
                response.close()
                raise

    def _refuse_page(self, response: aiohttp.ClientResponse) -> None:
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", ""):
            raise FetchError(
                FetchStatus.CLIENT_ERROR, f"content-encoding {encoding[:40]!r} was not requested"
            )
        if response.content_type == "text/html":
            raise _not_the_file(response.url, "a web page")

    def _check_length(self, url: URL, length: int, offset: int) -> None:
        expected = self.expected_bytes
        if length >= 0 and expected is not None and length != expected:
            self.discard()
            raise DataError(f"{url}: expected {expected} bytes, got {length}")
        limit = self._settings.max_download_bytes
        if length > limit:
            raise DataError(f"{url}: has {length} bytes; the limit is {limit}")
        require_space(self.partial.parent, max(0, length - offset))

    async def _receive(self, response: aiohttp.ClientResponse, sidecar: Sidecar) -> None:
        """Write the body; in any case, the sidecar then records how many bytes are valid."""
        most = sidecar.length if sidecar.length >= 0 else self.expected_bytes
        limit = self._settings.max_download_bytes if most is None else most
        # Before the first byte is overwritten: otherwise a kill could leave the new bytes under the
        # old ETag.
        self._remember(sidecar)
        with PartialFile(self.partial, sidecar.bytes) as file:
            self._show(file.size_bytes)
            try:
                await self._copy(response, file, sidecar, limit)
            finally:
                self._remember(msgspec.structs.replace(sidecar, bytes=file.sync()))
        if most is not None and file.size_bytes != most:
            raise FetchError(
                FetchStatus.CONNECTION, f"ended after {file.size_bytes} of {most} bytes"
            )
        if most is None and not self._is_whole():
            raise FetchError(FetchStatus.CONNECTION, "ended in the middle of the file")

    def _is_whole(self) -> bool:
        """Return whether a file of unknown length is complete; a lost connection looks like it."""
        match self._target.suffix.lower():
            case ".zip":  # the directory is at the end
                return zipfile.is_zipfile(self.partial)
            case ".json":
                with os_errors(self.partial), self.partial.open("rb") as file:
                    file.seek(-min(_JSON_TAIL, self.partial.stat().st_size), os.SEEK_END)
                    return file.read().rstrip()[-1:] in (b"}", b"]")
            case _:
                return True

    async def _copy(
        self, response: aiohttp.ClientResponse, file: PartialFile, sidecar: Sidecar, limit: int
    ) -> None:
        pace = _Pace(self._settings)
        synced = file.size_bytes
        async for chunk in response.content.iter_chunked(_READ_BYTES):
            if not file.size_bytes:
                self._check_signature(response.url, chunk)
            if file.size_bytes + len(chunk) > limit:
                file.restart()
                raise DataError(f"{response.url}: more than {limit} bytes")
            file.write(chunk)
            self._show(file.size_bytes)
            pace.check(len(chunk))
            if file.size_bytes - synced >= _SYNC_BYTES:
                synced = await asyncio.to_thread(file.sync)
                self._remember(msgspec.structs.replace(sidecar, bytes=synced))

    def _check_signature(self, url: URL, chunk: bytes) -> None:
        signature = _SIGNATURES.get(self._target.suffix.lower(), b"")
        if not chunk.startswith(signature[: len(chunk)]):
            page = chunk.lstrip()[:1] == b"<"
            raise _not_the_file(url, "a web page" if page else "something else")

    def _show(self, size: int) -> None:
        self._progress.update(size - self._shown)
        self._shown = size

    def _remember(self, sidecar: Sidecar) -> None:
        write_file(self._layout, self._sidecar_path, msgspec.json.encode(sidecar))

    def discard(self) -> None:
        """Delete the partial file."""
        remove_file(self._sidecar_path)
        remove_file(self.partial)
        self._sidecar = None

    def publish(self) -> None:
        """Rename the complete file."""
        with os_errors(self.partial):
            size = self.partial.stat().st_size
        with PartialFile(self.partial, size) as file:
            file.publish(self._target)
        remove_file(self._sidecar_path)


class _Pace:
    """Detects connections that are too slow."""

    def __init__(self, settings: FetchConfig) -> None:
        self._least = settings.min_bytes_per_s
        self._window_s = settings.read_timeout_s
        self._since = time.monotonic()
        self._bytes = 0

    def check(self, size: int) -> None:
        """Count ``size`` more bytes.

        Raises:
            FetchError: too few bytes arrived in the last window.
        """
        self._bytes += size
        passed = time.monotonic() - self._since
        if passed < self._window_s:
            return
        if self._bytes < self._least * passed:
            raise FetchError(
                FetchStatus.TIMEOUT,
                f"{self._bytes / passed:.0f} bytes/s; the minimum is {self._least}",
            )
        self._since, self._bytes = time.monotonic(), 0


def _not_the_file(url: URL, what: str) -> DataError:
    return DataError(
        f"{url}: returns {what} instead of the file",
        "this may be a login page of the network: open the URL in a browser, or set a mirror with "
        "`base_url`",
    )


def _hint(status: FetchStatus) -> str:
    if status is FetchStatus.REFUSED_ADDRESS:
        return "for a server inside your network, pass `allow_private`"
    if status in TRANSIENT:
        return "check the network, then run this again: downloaded data is kept"
    return "set a mirror with `base_url`, or put the file into a folder and use its path"
