"""The closed list of fetch results, and when each is retried."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from mmindex.core.records import Reason


class FetchStatus(StrEnum):
    """The result of one address, as stored with it."""

    STORED = "stored"  # the bytes are stored (or already were, under the same sha256)
    FORGOTTEN = "forgotten"  # the content was forgotten: never requested again
    # Temporary: tried again by the next run.
    TIMEOUT = "timeout"  # too slow to connect, to send data, or in total
    CONNECTION = "connection"  # refused, reset, ended early, broken TLS or HTTP
    DNS = "dns"  # the name cannot be resolved
    SERVER_ERROR = "server_error"  # 5xx
    THROTTLED = "throttled"  # the host asks for a longer wait than the budget allows
    ROBOTS_UNREACHABLE = "robots_unreachable"  # RFC 9309, 2.3.1.4: complete disallow
    HOST_GIVEN_UP = "host_given_up"  # too many lost connections to this host in a row
    # Permanent for now: tried again after ``retry_permanent_days``.
    OPTED_OUT = "opted_out"  # robots.txt, X-Robots-Tag or TDM-Reservation
    CRAWL_DELAY = "crawl_delay"  # robots.txt asks for longer pauses than the limit
    GONE = "gone"  # 404, 410
    CLIENT_ERROR = "client_error"  # any other 4xx, and invalid responses
    BAD_URL = "bad_url"  # not an http or https address, or one with credentials
    BAD_REDIRECT = "bad_redirect"  # too many, from https to http, or to a bad address
    REFUSED_ADDRESS = "refused_address"  # an address in a private or otherwise special network
    NOT_AN_IMAGE = "not_an_image"  # a web page or other text
    EMPTY = "empty"  # a response without a body
    TOO_LARGE = "too_large"  # more bytes than the limit


TRANSIENT: Final = frozenset(
    {
        FetchStatus.TIMEOUT,
        FetchStatus.CONNECTION,
        FetchStatus.DNS,
        FetchStatus.SERVER_ERROR,
        FetchStatus.THROTTLED,
        FetchStatus.ROBOTS_UNREACHABLE,
        FetchStatus.HOST_GIVEN_UP,
    }
)

_REASONS: Final = {
    FetchStatus.OPTED_OUT: Reason.OPTED_OUT,
    FetchStatus.NOT_AN_IMAGE: Reason.NOT_AN_IMAGE,
    FetchStatus.EMPTY: Reason.EMPTY,
    FetchStatus.TOO_LARGE: Reason.TOO_LARGE,
}


def reason_of(status: FetchStatus) -> Reason:
    """Return the quarantine reason for a failed fetch."""
    return _REASONS.get(status, Reason.FETCH_FAILED)


class FetchError(Exception):
    """A failed request.

    Attributes:
        status: the reason, from the closed list.
        detail: the reason in words, on one line.
        retry_after_s: how long the server asks to wait, or None.
        http_status: status of the server's response, or 0 if there was none.
        final: whether a retry within this run is useless.
    """

    def __init__(
        self,
        status: FetchStatus,
        detail: str,
        *,
        retry_after_s: float | None = None,
        http_status: int = 0,
        final: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.http_status = http_status
        self.final = final

    @property
    def lost_connection(self) -> bool:
        """Whether the host sent no response at all."""
        return (
            self.http_status == 0
            and not self.final
            and self.status
            in (
                FetchStatus.TIMEOUT,
                FetchStatus.CONNECTION,
                FetchStatus.DNS,
            )
        )
