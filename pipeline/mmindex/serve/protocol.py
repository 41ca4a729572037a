"""uvicorn's HTTP/1.1 protocol with time limits on both directions of a connection.

uvicorn limits the size of the request head and the pause between requests, but not how slowly a
head arrives or a response is read. A client that sends or reads one byte a minute would keep its
connection, and the memory for the response, forever.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mmindex.serve.settings import HEADER_TIMEOUT_S, SEND_TIMEOUT_S

MOST_CONNECTIONS: Final = 512
"""Requests of further connections are turned away, see :class:`mmindex.serve.guard.Guard`."""

_MOST_SOCKETS: Final = 2 * MOST_CONNECTIONS  # additional connections are closed immediately
_REFUSED: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nX-Content-Type-Options: nosniff\r\n"
    b"Content-Security-Policy: default-src 'none'\r\nConnection: close\r\nContent-Length: 12\r\n"
    b"\r\nno HTTP/1.1\n"
)


class TimedH11Protocol(H11Protocol):
    """Closes connections if the request does not arrive, or the response is not read, in time."""

    _too_late: asyncio.TimerHandle | None = None
    _send_check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        if len(self.connections) > _MOST_SOCKETS:
            transport.abort()
            return
        self._start()
        self._watch_sending(0)

    def data_received(self, data: bytes) -> None:
        """Stop the clock when a head is complete; start it when the next one begins."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            if self._too_late is None:
                self._start()
        elif self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        for clock in (self._too_late, self._send_check):
            if clock is not None:
                clock.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 # not sent
        """Respond to an invalid request with the headers of every response."""
        if self.conn.our_state is h11.IDLE:
            self.transport.write(_REFUSED)
        self.transport.close()

    def _start(self) -> None:
        self._too_late = self.loop.call_later(HEADER_TIMEOUT_S, self._close_late)

    def _close_late(self) -> None:
        self._too_late = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()

    def _watch_sending(self, before: int) -> None:
        """Close a connection that has read no data since the last check."""
        waits = self.transport.get_write_buffer_size()
        if waits and before and waits >= before:
            self.transport.abort()
            return
        self._send_check = self.loop.call_later(SEND_TIMEOUT_S / 2, self._watch_sending, waits)
