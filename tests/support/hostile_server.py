"""A real HTTP server on loopback that does whatever a test asks for, byte by byte.

It implements just enough of HTTP/1.1 by hand, so that it can also break every rule.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp.abc import AbstractResolver


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case

    @property
    def host(self) -> str:
        return self.headers.get("host", "").partition(":")[0]


@dataclass(slots=True)
class Reply:
    """The response of the server; its fields can be wrong."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None  # the value of Content-Length; -1 omits the header
    cut_after: int | None = None  # close the connection after this number of bytes of the body
    delay_s: float = 0.0  # pause before the head
    trickle_s: float = 0.0  # pause before each byte of the body
    endless: bool = False  # repeat the body forever
    hold: bool = False  # keep the connection open after the body without sending more


Handler = Callable[[Request], Reply | bytes | Awaitable[Reply | bytes]]


class HostileServer:
    """Routes by path, otherwise ``default``; ``hits`` counts requests by host and path."""

    def __init__(self) -> None:
        self.routes: dict[str, Handler | Reply | bytes] = {}
        self.default: Handler | Reply = Reply(b"not here", 404)
        self.requests: list[Request] = []
        self.hits: Counter[str] = Counter()
        self.sent_bytes = 0
        self.under_way = self.most_under_way = 0
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    @staticmethod
    def wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Wait until a condition is true."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (request := await _read_request(reader)) is not None:
                if not await self._answer(request, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        self.requests.append(request)
        self.hits[request.path] += 1
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            found = self.routes.get(request.path, self.default)
            made = found(request) if callable(found) else found
            reply = made if isinstance(made, Reply | bytes) else await made
            return await self._send(reply, writer)
        finally:
            self.under_way -= 1

    async def _send(self, reply: Reply | bytes, writer: asyncio.StreamWriter) -> bool:
        """Send; return False if the connection must be closed."""
        if isinstance(reply, bytes):
            writer.write(reply)
            await writer.drain()
            return False
        await asyncio.sleep(reply.delay_s)
        headers = dict(reply.headers)
        if reply.length != -1 and not reply.endless:
            claimed = len(reply.body) if reply.length is None else reply.length
            headers.setdefault("Content-Length", str(claimed))
        lines = [f"HTTP/1.1 {reply.status} Whatever"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        body = reply.body if reply.cut_after is None else reply.body[: reply.cut_after]
        while True:
            await self._send_body(body, reply.trickle_s, writer)
            if not reply.endless:
                break
        if reply.hold:
            await asyncio.Event().wait()
        return reply.cut_after is None and reply.length is None

    async def _send_body(self, body: bytes, trickle_s: float, writer: asyncio.StreamWriter) -> None:
        step = 1 if trickle_s else 1 << 16
        for start in range(0, len(body), step):
            writer.write(body[start : start + step])
            await writer.drain()
            self.sent_bytes += len(body[start : start + step])
            if trickle_s:
                await asyncio.sleep(trickle_s)

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    return Request(method, path, {name.lower(): value for name, value in headers.items()})


@contextmanager
def hostile_server() -> Iterator[HostileServer]:
    """Serve on a free port of 127.0.0.1 in a separate thread during the block."""
    server = HostileServer()
    loop = asyncio.new_event_loop()
    started = loop.create_future()

    async def start() -> asyncio.Server:
        made = await asyncio.start_server(server._serve, "127.0.0.1", 0)
        server.port = made.sockets[0].getsockname()[1]
        return made

    listening = loop.run_until_complete(start())
    started.set_result(None)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server._close(listening), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class FixedResolver(AbstractResolver):
    """Answers from a table; each name has a list of answers, of which the last one is repeated.

    Names that are not in the table are at 127.0.0.1; ``asked`` records the queries.
    """

    def __init__(self, answers: Mapping[str, list[list[str]]] | None = None) -> None:
        self._answers = {host: list(turns) for host, turns in (answers or {}).items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, *_: object) -> list[Any]:
        self.asked.append(host)
        turns = self._answers.get(host, [["127.0.0.1"]])
        addresses = turns.pop(0) if len(turns) > 1 else turns[0]
        if not addresses:
            raise OSError(None, "no such name")
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in addresses
        ]

    async def close(self) -> None:
        pass
