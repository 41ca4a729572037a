"""HTTP/1.1 as uvicorn speaks it, with a time limit on the head of a request.

uvicorn limits the size of a head and the pause between requests, but not how slowly a head may
arrive: a client that sends a byte a minute would hold a connection for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mmindex.serve.settings import HEADER_TIMEOUT_S


class TimedH11Protocol(H11Protocol):
    """Closes connections whose request has not arrived in time."""

    _too_late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        """Stop the clock when a head is complete; start it where the next one begins."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            if self._too_late is None:
                self._start()
        elif self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        if self._too_late is not None:
            self._too_late.cancel()
        super().connection_lost(exc)

    def _start(self) -> None:
        self._too_late = self.loop.call_later(HEADER_TIMEOUT_S, self._close_late)

    def _close_late(self) -> None:
        self._too_late = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()
