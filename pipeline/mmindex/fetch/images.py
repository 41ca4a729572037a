"""Fetch one image. Retry where that may help; check for opt-outs before reading the body."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from mmindex.core.config import FetchConfig
from mmindex.fetch.addresses import parse_url
from mmindex.fetch.client import Client, check_status, read_body
from mmindex.fetch.optout import opt_out
from mmindex.fetch.outcome import FetchError, FetchStatus
from mmindex.fetch.politeness import Politeness, backoff_s

# Bodies up to this size are not limited; only a few larger ones may be in memory at once.
_SMALL_BODY_BYTES: Final = 4 << 20
_LARGE_BODIES: Final = 8
_ACCEPT: Final = {"Accept": "image/*,*/*;q=0.5"}

# Failures that are retried within the same run.
_TRY_AGAIN: Final = frozenset(
    {FetchStatus.TIMEOUT, FetchStatus.CONNECTION, FetchStatus.DNS, FetchStatus.SERVER_ERROR}
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """The result of fetching one address.

    Attributes:
        url: the requested address.
        status: from the closed list; ``data`` and ``key`` are only set for ``stored``.
        detail: the status in words; empty for ``stored``.
        http_status: that of the last response, 0 if there was none.
        tries: requests sent, without redirects.
        final_url: the address after redirects.
        key: sha256 of the bytes, in hex.
        data: the body.
    """

    url: str
    status: FetchStatus
    detail: str = ""
    http_status: int = 0
    tries: int = 0
    final_url: str = ""
    key: str = ""
    data: bytes = b""


class BodySlot:
    """Permission to keep a large body in memory; return it with ``release``."""

    def __init__(self, large: asyncio.Semaphore) -> None:
        self._large = large
        self._held = False

    async def grow(self, size: int) -> None:
        """Report the body's size so far; wait when it becomes large."""
        if size > _SMALL_BODY_BYTES and not self._held:
            await self._large.acquire()
            self._held = True

    def release(self) -> None:
        """Report that the body is no longer in memory."""
        if self._held:
            self._large.release()
            self._held = False


class ImageFetcher:
    """Fetches the images of one crawl.

    Args:
        client: an open client.
        politeness: the state of the hosts.
        settings: limits.
        max_bytes: larger bodies are refused.
    """

    def __init__(
        self, client: Client, politeness: Politeness, settings: FetchConfig, max_bytes: int
    ) -> None:
        self._client = client
        self._politeness = politeness
        self._settings = settings
        self._max_bytes = min(max_bytes, settings.max_image_bytes)
        self._large = asyncio.Semaphore(_LARGE_BODIES)

    def slot(self) -> BodySlot:
        """Return a slot for one fetch."""
        return BodySlot(self._large)

    async def fetch(self, text: str, slot: BodySlot) -> Fetched:
        """Fetch the image at the address ``text``. The result also reports failures.

        Waiting at the server's request is not a failed try; the host's budget limits it.
        """
        tries = failed = 0
        try:
            url = parse_url(text)
            while True:
                tries += 1
                try:
                    return await self._try(text, url, slot, tries)
                except FetchError as error:
                    slot.release()
                    self._politeness.failed(url, error)
                    if not self._goes_on(url, error, failed):
                        raise
                    if error.status is not FetchStatus.THROTTLED:
                        failed += 1
                        await asyncio.sleep(backoff_s(self._settings, failed))
        except FetchError as error:
            return Fetched(text, error.status, error.detail, error.http_status, tries)

    def _goes_on(self, url: URL, error: FetchError, failed: int) -> bool:
        if error.final or self._politeness.host(url).given_up is not None:
            return False
        if error.status is FetchStatus.THROTTLED:
            return True
        return error.status in _TRY_AGAIN and failed < self._settings.retries

    async def _try(self, text: str, url: URL, slot: BodySlot, tries: int) -> Fetched:
        admission = self._politeness.admission
        async with self._client.get(url, headers=_ACCEPT, admit=admission) as response:
            data = await self._read(response, slot)
            code, final = response.status, str(response.url)
        self._politeness.answered(url)
        key = hashlib.sha256(data).hexdigest()
        return Fetched(text, FetchStatus.STORED, "", code, tries, final, key, data)

    async def _read(self, response: aiohttp.ClientResponse, slot: BodySlot) -> bytes:
        code = response.status
        try:
            check_status(response)
            asked = opt_out(response.headers)
            if asked is not None:
                raise FetchError(FetchStatus.OPTED_OUT, asked, http_status=code)
            if response.content_type.startswith("text/"):
                detail = f"the server states the type {response.content_type[:60]}"
                raise FetchError(FetchStatus.NOT_AN_IMAGE, detail, http_status=code)
            data = await read_body(response, self._max_bytes, slot.grow)
        except FetchError:
            # Nothing more is read from this connection: the body may be endless, or opted out.
            response.close()
            raise
        if not data:
            raise FetchError(FetchStatus.EMPTY, "the body is empty", http_status=code)
        if data.lstrip()[:1] == b"<":
            raise FetchError(FetchStatus.NOT_AN_IMAGE, "a web page", http_status=code)
        return data
