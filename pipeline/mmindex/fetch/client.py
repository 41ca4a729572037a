"""The HTTP client: checks addresses, follows redirects itself and limits body sizes."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

import mmindex
from mmindex.core.config import FetchConfig
from mmindex.fetch.addresses import Guard, RefusedAddressError, parse_url
from mmindex.fetch.outcome import FetchError, FetchStatus

# The name for robots.txt rules (RFC 9309, 2.2.1).
PRODUCT: Final = "mmindex"
MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# How long addresses of names are kept: a list with a million rows needs one query per host.
_DNS_TTL_S: Final = 300
_DNS_CACHED_NAMES: Final = 10_000
_DETAIL_CHARS: Final = 200

# Delays a request to a URL until it is permitted; left when the response has been read.
Admission = Callable[[URL], AbstractAsyncContextManager[None]]


def user_agent(contact: str) -> str:
    """Return the User-Agent header."""
    about = f"image search indexer; contact: {contact}" if contact else "image search indexer"
    return f"{PRODUCT}/{mmindex.__version__} ({about})"


class Client:
    """An HTTP client session; use as an async context manager.

    Args:
        settings: limits and permissions.
        resolver: the resolver; the operating system's by default.
    """

    def __init__(self, settings: FetchConfig, resolver: AbstractResolver | None = None) -> None:
        self._settings = settings
        self._resolver = resolver
        self._proxies = _environment_proxies() if settings.use_env_proxy else {}

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._guard = Guard(
            self._resolver or aiohttp.ThreadedResolver(),
            allow_private=settings.allow_private,
            trusted_hosts=[proxy.raw_host or "" for proxy in self._proxies.values()],
        )
        connector = aiohttp.TCPConnector(
            resolver=self._guard,
            socket_factory=self._guard.open_socket,
            limit=0,  # the callers limit the number of concurrent requests
            ttl_dns_cache=_DNS_TTL_S,
            dns_cache_max_size=_DNS_CACHED_NAMES,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # True would also send credentials from .netrc
            headers={"User-Agent": user_agent(settings.contact), "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=settings.connect_timeout_s,
                sock_read=settings.read_timeout_s,
            ),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._guard.close()

    @asynccontextmanager
    async def get(
        self,
        url: URL,
        headers: Mapping[str, str] | None = None,
        admit: Admission | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Request ``url``, follow redirects and return the response with its body unread.

        Each hop is checked like the first: scheme, credentials, host, network address.

        Args:
            url: from :func:`parse_url`.
            headers: request headers.
            admit: entered before each hop and left when its response has been read.

        Raises:
            FetchError: a hop is refused, or no response arrives (also while the caller reads).
        """
        for _ in range(MAX_REDIRECTS + 1):
            self._guard.check_url(url)
            async with AsyncExitStack() as stack:
                if admit is not None:
                    await stack.enter_async_context(admit(url))
                with _network_errors():
                    response = await stack.enter_async_context(
                        self._session.get(
                            url, headers=headers, allow_redirects=False, proxy=self._proxy_for(url)
                        )
                    )
                    if response.status not in _REDIRECTS or "Location" not in response.headers:
                        yield response
                        return
                    location = response.headers["Location"]
                    # The body of a redirect is not needed, however long it is.
                    response.close()
            url = _next_hop(url, location)
        raise FetchError(FetchStatus.BAD_REDIRECT, f"more than {MAX_REDIRECTS} redirects")

    def _proxy_for(self, url: URL) -> URL | None:
        proxy = self._proxies.get(url.scheme)
        if proxy is None or urllib.request.proxy_bypass(url.raw_host or ""):
            return None
        return proxy


def _environment_proxies() -> dict[str, URL]:
    """Return http_proxy and https_proxy; other kinds (socks, all_proxy) are not supported."""
    found = urllib.request.getproxies_environment()
    return {
        scheme: URL(found[scheme])
        for scheme in ("http", "https")
        if found.get(scheme, "").startswith(("http://", "https://"))
    }


def _next_hop(url: URL, location: str) -> URL:
    try:
        target = parse_url(urllib.parse.urljoin(str(url), location))
    except ValueError as error:
        raise FetchError(FetchStatus.BAD_REDIRECT, f"not to a URL: {error}") from error
    except FetchError as error:
        raise FetchError(FetchStatus.BAD_REDIRECT, f"redirect: {error.detail}") from error
    if url.scheme == "https" and target.scheme != "https":
        raise FetchError(FetchStatus.BAD_REDIRECT, "redirect from https to http")
    return target


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """Convert aiohttp's exceptions to :class:`FetchError` with a known status."""
    try:
        yield
    except TimeoutError as error:
        raise FetchError(FetchStatus.TIMEOUT, _explain(error, "no answer in time")) from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, RefusedAddressError):
            detail = str(error.os_error.strerror)
            raise FetchError(FetchStatus.REFUSED_ADDRESS, detail) from error
        dns = isinstance(error, aiohttp.ClientConnectorDNSError)
        status = FetchStatus.DNS if dns else FetchStatus.CONNECTION
        raise FetchError(status, _explain(error)) from error
    except aiohttp.InvalidURL as error:
        raise FetchError(FetchStatus.BAD_URL, _explain(error)) from error
    except aiohttp.ClientError as error:
        raise FetchError(FetchStatus.CONNECTION, _explain(error)) from error


def _explain(error: Exception, otherwise: str = "") -> str:
    text = " ".join(str(error).split())[:_DETAIL_CHARS]
    return text or otherwise or type(error).__name__


def check_status(response: aiohttp.ClientResponse) -> None:
    """Raise unless the status is 2xx.

    Raises:
        FetchError: with the meaning of the status, and Retry-After if the server sends it.
    """
    code = response.status
    if 200 <= code < 300:
        return
    detail = f"{code} {response.reason or ''}".strip()[:_DETAIL_CHARS]
    if code in (429, 503):
        wait = retry_after(response.headers.get("Retry-After", ""))
        status = FetchStatus.THROTTLED if code == 429 or wait else FetchStatus.SERVER_ERROR
        raise FetchError(status, detail, retry_after_s=wait, http_status=code)
    if code >= 500 or code in (408, 425):
        raise FetchError(FetchStatus.SERVER_ERROR, detail, http_status=code)
    status = FetchStatus.GONE if code in (404, 410) else FetchStatus.CLIENT_ERROR
    raise FetchError(status, detail, http_status=code)


def retry_after(value: str, now: float | None = None) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3); None if it is invalid."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, moment.timestamp() - (time.time() if now is None else now))


async def read_body(
    response: aiohttp.ClientResponse,
    limit: int,
    grow: Callable[[int], Awaitable[None]] | None = None,
) -> bytes:
    """Read the whole body, up to ``limit`` bytes.

    Args:
        response: a response whose body is unread.
        limit: largest body.
        grow: called with the size so far after each chunk; may wait.

    Raises:
        FetchError: it is larger, compressed without being requested, or incomplete.
    """
    if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
        encoding = response.headers["Content-Encoding"][:40]
        raise FetchError(
            FetchStatus.CLIENT_ERROR,
            f"the body has content-encoding {encoding!r}, but identity was requested",
            http_status=response.status,
        )
    if response.content_length is not None and response.content_length > limit:
        raise _too_large(response.content_length, limit)
    chunks: list[bytes] = []
    size = 0
    with _network_errors():
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise _too_large(size, limit)
            chunks.append(chunk)
            if grow is not None:
                await grow(size)
    return b"".join(chunks)


def _too_large(size: int, limit: int) -> FetchError:
    return FetchError(FetchStatus.TOO_LARGE, f"{size} bytes or more; the limit is {limit}")


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Limit the block to ``seconds``.

    Raises:
        FetchError: ``timeout``.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise FetchError(FetchStatus.TIMEOUT, f"not finished after {seconds:g} s") from error
