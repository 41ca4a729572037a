"""robots.txt, fetched once per origin and evaluated as RFC 9309 specifies.

Failed fetches follow section 2.3.1 of the RFC: 4xx allows everything; 5xx and missing responses
forbid everything for now. 429 counts as a missing response, because it is temporary.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Final

from protego import Protego
from yarl import URL

from mmindex.fetch.client import PRODUCT, Client, check_status, deadline
from mmindex.fetch.outcome import FetchError, FetchStatus

# RFC 9309, 2.5: crawlers must read at least 500 KiB, and may stop there.
_MAX_BYTES: Final = 512 * 1024
# RFC 9309, 2.4: not longer than a day.
_KEEP_S: Final = 24 * 3600.0
# A long crawl of many hosts must not keep the rules of all of them in memory.
_KEPT_ORIGINS: Final = 4_000
_TRIES: Final = 2

# These failures keep their status; a server that does not respond now may respond later.
_REFUSES: Final = frozenset({FetchStatus.BAD_URL, FetchStatus.REFUSED_ADDRESS})


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in one origin's robots.txt.

    Attributes:
        parsed: its rules; None if everything is allowed or the file could not be read.
        error: why the file could not be read; then nothing is allowed for now.
    """

    parsed: Protego | None
    error: FetchError | None = None

    def check(self, url: URL) -> None:
        """Raise if the rules forbid ``url``.

        Raises:
            FetchError: ``opted_out``, or why robots.txt could not be read.
        """
        if self.error is not None:
            raise self.error
        if self.parsed is not None and not self.parsed.can_fetch(str(url), PRODUCT):
            raise FetchError(FetchStatus.OPTED_OUT, "robots.txt disallows it")

    @property
    def delay_s(self) -> float:
        """Seconds between requests, from Crawl-delay and Request-rate; 0 if neither is set."""
        if self.parsed is None:
            return 0.0
        rate = self.parsed.request_rate(PRODUCT)
        by_rate = rate.seconds / rate.requests if rate is not None and rate.requests else 0.0
        delay = self.parsed.crawl_delay(PRODUCT) or 0.0
        return max(0.0 if math.isnan(delay) else delay, by_rate, 0.0)


class Robots:
    """The rules of all origins so far; each is fetched once, even if many rows wait for it."""

    def __init__(self, client: Client, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._rules: dict[URL, tuple[float, asyncio.Task[Rules]]] = {}

    async def rules(self, url: URL) -> Rules:
        """Return the rules of ``url``'s origin."""
        origin = url.origin()
        now = time.monotonic()
        known = self._rules.get(origin)
        if known is None or known[0] < now:
            if len(self._rules) >= _KEPT_ORIGINS:
                del self._rules[next(iter(self._rules))]
            known = (now + _KEEP_S, asyncio.create_task(self._fetch(origin)))
            self._rules[origin] = known
        if known[1].done():
            return known[1].result()
        # Cancelling one row must not cancel the fetch for the others.
        return await asyncio.shield(known[1])

    async def _fetch(self, origin: URL) -> Rules:
        error: FetchError | None = None
        for _ in range(_TRIES):
            try:
                async with deadline(self._timeout_s):
                    return Rules(await self._read(origin.with_path("/robots.txt")))
            except FetchError as caught:
                error = caught
                if error.status in (FetchStatus.GONE, FetchStatus.CLIENT_ERROR):
                    return Rules(None)  # "unavailable": any access is allowed
                if error.status is FetchStatus.BAD_REDIRECT:
                    return Rules(None)  # 2.3.1.2: may count as unavailable
                if error.status in _REFUSES:
                    return Rules(None, _as_rules_error(error, error.status))
        assert error is not None  # noqa: S101  # the loop ran at least once
        return Rules(None, _unreachable(error))

    async def _read(self, url: URL) -> Protego:
        async with self._client.get(url) as response:
            check_status(response)
            text = bytearray()
            async for chunk in response.content.iter_any():
                text += chunk
                if len(text) > _MAX_BYTES:
                    response.close()
                    break
        return Protego.parse(bytes(text[:_MAX_BYTES]).decode("utf-8", "replace"))


def _unreachable(error: FetchError) -> FetchError:
    own = error.status in (FetchStatus.DNS, FetchStatus.CONNECTION, FetchStatus.TIMEOUT)
    return _as_rules_error(error, error.status if own else FetchStatus.ROBOTS_UNREACHABLE)


def _as_rules_error(error: FetchError, status: FetchStatus) -> FetchError:
    return FetchError(
        status, f"robots.txt: {error.detail}", http_status=error.http_status, final=True
    )
