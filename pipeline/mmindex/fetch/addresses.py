"""The URLs and network addresses that requests may use.

A name is resolved once per connection, all its addresses are checked, and the connection uses the
checked addresses instead of the name: a resolver that answers differently the next time (DNS
rebinding) has no effect. The socket factory checks again immediately before the connection, so that
the rule also applies without the resolver (for an address in the URL).

Rules after OWASP's "Server-Side Request Forgery Prevention" cheat sheet, the special-purpose
registries of IANA (through :mod:`ipaddress`), RFC 6052 (NAT64), 3056 (6to4), 4380 (Teredo) and 5214
(ISATAP).
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType
from yarl import URL

from mmindex.fetch.outcome import FetchError, FetchStatus

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL_CHARS: Final = 8_000  # the longest URL that RFC 9110 requires servers to accept

# In a cloud, these return credentials, whatever else the network allows.
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "100.100.100.200",
        "168.63.129.16",  # a public address, but Azure's host agent
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
    )
)
# Public according to the registry, but not used by servers of the open internet.
_NEVER: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.88.99.0/24",  # 6to4 relays, deprecated by RFC 7526
        "::/96",  # IPv4-compatible, deprecated by RFC 4291; includes :: and ::1, checked before
        "64:ff9b:1::/48",  # NAT64 for local use
        "100::/64",
        "5f00::/16",  # segment routing
        "3fff::/20",  # documentation
    )
)
_PRIVATE: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
_SITE_LOCAL: Final = ipaddress.ip_network("fec0::/10")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_ISATAP: Final = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")

# The URL standard parses such hosts as IPv4 (https://url.spec.whatwg.org/#ends-in-a-number-checker)
# and getaddrinfo reads 127.1, 0x7f.0.0.1 and 2130706433 as 127.0.0.1.
_NUMERIC_HOST: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE)
_HOST: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\.?", re.IGNORECASE)


# RFC 3986, section 3: the valid characters of a path and a query; every % starts an escape.
_PATH: Final = re.compile(
    r"[a-z]+://[^/?#]+(?P<path>(?:/(?:[a-z0-9._~!$&'()*+,;=:@/-]|%[0-9a-f]{2})*)?)"
    r"(?:\?(?P<query>(?:[a-z0-9._~!$&'()*+,;=:@/?-]|%[0-9a-f]{2})*))?",
    re.IGNORECASE,
)


def parse_url(text: str) -> URL:
    """Parse a URL and check that it can be requested.

    Raises:
        FetchError: ``bad_url``: not an http or https URL, credentials in it, or a malformed host.
    """
    try:
        url = _as_written(text.strip())
        host, port = url.raw_host, url.port
    except (ValueError, UnicodeError) as error:
        raise _bad_url(f"not a URL: {error}") from error
    if len(text) > MAX_URL_CHARS:
        raise _bad_url(f"{len(text)} characters; the limit is {MAX_URL_CHARS}")
    if url.scheme not in ("http", "https"):
        raise _bad_url(f"scheme {url.scheme[:20]!r}: only http and https are supported")
    if url.user is not None or url.password is not None:
        raise _bad_url("credentials in the URL")
    if not host or not port:
        raise _bad_url("no host in the URL")
    if _literal(host) is None and (_NUMERIC_HOST.fullmatch(host) or not _HOST.fullmatch(host)):
        raise _bad_url(f"{host[:60]!r} is not a host name or an address in the usual notation")
    return url.with_fragment(None)


def _as_written(text: str) -> URL:
    """Return the URL with its path and query unchanged if they are well-formed.

    ``%2F`` and ``/`` differ for a server that checks a signature.
    """
    url = URL(text)
    parts = _PATH.fullmatch(text.partition("#")[0])
    if parts is None or url.scheme not in ("http", "https") or "/." in parts["path"]:
        return url
    return URL.build(
        scheme=url.scheme,
        authority=url.raw_authority,
        path=parts["path"] or "/",
        query_string=parts["query"] or "",
        encoded=True,
    )


def _bad_url(detail: str) -> FetchError:
    return FetchError(FetchStatus.BAD_URL, detail)


@functools.lru_cache(maxsize=4_096)
def _literal(host: str) -> Address | None:
    """Return ``host`` as an IP address if it is one in the usual notation; otherwise None."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


@functools.lru_cache(maxsize=4_096)
def refusal(address: Address, *, allow_private: bool) -> str | None:
    """Return why a connection to ``address`` is refused; None if it is allowed.

    Args:
        address: an address from a resolver.
        allow_private: allow loopback, private, link-local and shared addresses. Multicast,
            unspecified, reserved and cloud metadata addresses are never allowed.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            address = ipaddress.IPv6Address(int(address))
        embedded = _embedded(address)
        if embedded is not None:
            inner = refusal(embedded, allow_private=allow_private)
            return None if inner is None else f"{address} contains {inner}"
    if address in _METADATA:
        return f"{address} (cloud metadata)"
    if address.is_multicast or address.is_unspecified:
        return f"{address} (multicast or unspecified)"
    kind = _inside(address)
    if kind is not None:
        return None if allow_private else f"{address} ({kind})"
    if not address.is_global or address.is_reserved or any(address in net for net in _NEVER):
        return f"{address} (reserved)"
    return None


def _inside(address: Address) -> str | None:
    """Return the kind of internal network that the address belongs to; None if it is public."""
    if address.is_loopback:
        return "loopback"
    if address.is_link_local or (address.version == 6 and address in _SITE_LOCAL):
        return "link-local"
    if address.version == 4 and address in _SHARED:
        return "shared by a provider's customers"
    return "private" if any(address in network for network in _PRIVATE) else None


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address embedded in this IPv6 address, if there is one."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or address.packed[8:12] in _ISATAP:
        return ipaddress.IPv4Address(address.packed[12:])
    return None


class RefusedAddressError(PermissionError):
    """An address that is not allowed. A subclass of OSError, so that aiohttp passes it on."""

    def __init__(self, detail: str) -> None:
        super().__init__(errno.EACCES, detail)


class Guard(AbstractResolver):
    """Resolver and socket factory of one client. Both allow only permitted addresses.

    Args:
        resolver: the actual resolver.
        allow_private: see :func:`refusal`.
        trusted_hosts: names that are not checked: the proxies of the environment.
    """

    def __init__(
        self,
        resolver: AbstractResolver,
        *,
        allow_private: bool = False,
        trusted_hosts: Iterable[str] = (),
    ) -> None:
        self._resolver = resolver
        self._allow_private = allow_private
        self._trusted_hosts = frozenset(trusted_hosts)
        self._trusted = {host for host in self._trusted_hosts if _literal(host) is not None}

    def check_url(self, url: URL) -> None:
        """Refuse a URL whose host is a forbidden address.

        Raises:
            FetchError: ``refused_address``.
        """
        address = _literal(url.raw_host or "")
        why = None if address is None else refusal(address, allow_private=self._allow_private)
        if why is not None:
            raise FetchError(FetchStatus.REFUSED_ADDRESS, why)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve a host name. If one address is forbidden, all are refused.

        Raises:
            RefusedAddressError: an address is forbidden.
            OSError: the name cannot be resolved.
        """
        results = await self._resolver.resolve(host, port, family)
        if host in self._trusted_hosts:
            self._trusted.update(result["host"] for result in results)
            return results
        for result in results:
            self._check(result["host"])
        return results

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """Create the socket for a connection to a resolved address.

        Raises:
            RefusedAddressError: the address is forbidden.
        """
        family, kind, protocol, _, sockaddr = info
        host = str(sockaddr[0])
        if host not in self._trusted:
            self._check(host)
        return socket.socket(family, kind, protocol)

    def _check(self, host: str) -> None:
        address = _literal(host)
        if address is None:
            raise RefusedAddressError(f"{host!r} is not an address")
        why = refusal(address, allow_private=self._allow_private)
        if why is not None:
            raise RefusedAddressError(why)

    async def close(self) -> None:
        """Close the resolver."""
        await self._resolver.close()
