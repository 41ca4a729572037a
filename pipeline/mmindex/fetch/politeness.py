"""Limit the rate and the parallel requests for each host."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from mmindex.core.config import FetchConfig
from mmindex.fetch.client import Admission, deadline
from mmindex.fetch.outcome import FetchError, FetchStatus
from mmindex.fetch.robots import Robots

_DEFAULT_WAIT_S: Final = 5.0  # for a 429 without a time
_LEAST_WAIT_S: Final = 1.0  # for a time that is too short: "Retry-After: 0"
# Restored per success, so that a host that throttles occasionally over a million rows is kept.
_EARNED_BACK_S: Final = 0.5


@dataclass(slots=True)
class Host:
    """The requests in progress at one host, and its rules.

    Attributes:
        slots: limits parallel requests.
        delay_s: minimum time between the starts of two requests.
        next_at: loop time before which no request may start.
        waited_s: seconds waited for Retry-After so far.
        lost: consecutive lost connections.
        given_up: why this host is left for a later run, or None.
    """

    slots: asyncio.Semaphore
    delay_s: float = 0.0
    next_at: float = 0.0
    waited_s: float = 0.0
    lost: int = 0
    given_up: FetchError | None = None
    ready: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Politeness:
    """The state of all hosts of one crawl."""

    def __init__(self, settings: FetchConfig, robots: Robots) -> None:
        self._settings = settings
        self._robots = robots
        self._total = asyncio.Semaphore(settings.concurrency)
        self._hosts: dict[tuple[str, int], Host] = {}

    def host(self, url: URL) -> Host:
        """Return the state of ``url``'s host and port."""
        key = (url.raw_host or "", url.port or 0)
        host = self._hosts.get(key)
        if host is None:
            host = Host(asyncio.Semaphore(self._settings.per_host_concurrency))
            self._hosts[key] = host
        return host

    @property
    def admission(self) -> Admission:
        """A context that waits until a URL may be requested: robots.txt, pauses, rate, limits."""
        return self._admit

    @asynccontextmanager
    async def _admit(self, url: URL) -> AsyncIterator[None]:
        host = self.host(url)
        rules = await self._robots.rules(url)
        rules.check(url)
        self._set_pace(host, rules.delay_s)
        # Always in this order, and both are released between two hops, so there is no deadlock.
        async with host.slots:
            await self._wait_turn(host)
            async with self._total, deadline(self._settings.image_timeout_s):
                yield

    def leave(self, url: URL) -> None:
        """Forget a host whose rows are done, unless it has a delay or pause, or was given up."""
        host = self.host(url)
        if not host.delay_s and host.given_up is None and host.next_at == 0.0:
            del self._hosts[(url.raw_host or "", url.port or 0)]

    def _set_pace(self, host: Host, asked_s: float) -> None:
        if host.ready:
            return
        host.ready = True
        rate = self._settings.per_host_rate
        host.delay_s = max(asked_s, 1.0 / rate if rate else 0.0)
        if asked_s > self._settings.max_crawl_delay_s:
            host.given_up = FetchError(
                FetchStatus.CRAWL_DELAY,
                f"robots.txt asks for {asked_s:g} s between requests; "
                f"the limit is {self._settings.max_crawl_delay_s:g}",
            )

    async def _wait_turn(self, host: Host) -> None:
        loop = asyncio.get_running_loop()
        if not host.delay_s and host.given_up is None and host.next_at <= loop.time():
            return
        async with host.turn:
            # The pause may become longer during the wait.
            while host.given_up is None and (wait := host.next_at - loop.time()) > 0:
                await asyncio.sleep(wait)
            if host.given_up is not None:
                raise host.given_up
            if host.delay_s:
                host.next_at = loop.time() + host.delay_s

    def answered(self, url: URL) -> None:
        """Record a success, which restores some of the host's failure budget."""
        host = self.host(url)
        host.lost = 0
        host.waited_s = max(0.0, host.waited_s - _EARNED_BACK_S)

    def failed(self, url: URL, error: FetchError) -> None:
        """Record a failure. A host that stays down or overloaded is left for a later run.

        Args:
            url: the requested address.
            error: the failure. With Retry-After, the host is paused for that long.
        """
        host = self.host(url)
        if error.lost_connection:
            host.lost += 1
            if host.lost >= self._settings.host_failures and host.given_up is None:
                host.given_up = FetchError(
                    FetchStatus.HOST_GIVEN_UP,
                    f"{host.lost} failed connections in a row; the last one: {error.detail}",
                )
            return
        host.lost = 0
        if error.status is FetchStatus.THROTTLED and host.given_up is None:
            self._rest(host, error)

    def _rest(self, host: Host, error: FetchError) -> None:
        """Pause the host. Simultaneous responses that ask for the same pause count once."""
        asked = _DEFAULT_WAIT_S if error.retry_after_s is None else error.retry_after_s
        asked = max(asked, _LEAST_WAIT_S)
        now = asyncio.get_running_loop().time()
        more = now + asked - max(host.next_at, now)
        if more <= 0:
            return
        budget = self._settings.retry_after_budget_s
        if host.waited_s + more > budget:
            host.given_up = FetchError(
                FetchStatus.THROTTLED,
                f"{error.detail}: asks to wait {asked:g} s, "
                f"{max(0.0, budget - host.waited_s):g} s of the budget of {budget:g} s are left",
                http_status=error.http_status,
            )
            return
        host.waited_s += more
        host.next_at = now + asked


def backoff_s(settings: FetchConfig, attempt: int) -> float:
    """Pause before try ``attempt`` (1 for the first repetition), with full jitter.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    ceiling = min(settings.backoff_max_s, settings.backoff_s * 2.0 ** (attempt - 1))
    return random.uniform(0.0, ceiling)
