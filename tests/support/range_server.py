"""A file server that obeys Range and If-Range, except where a test changes this."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from dataclasses import dataclass, field

from support.hostile_server import Handler, Reply, Request


@dataclass(slots=True)
class RangeFile:
    """A file served with ranges; each field introduces one fault."""

    body: bytes
    etag: str = '"v1"'
    cut_after: int | None = None  # close the connection after this number of bytes of each response
    ignore_range: bool = False
    content_range: str | None = None  # sent instead of the correct one
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, request: Request) -> Reply:
        headers = {"Content-Type": "application/zip", **self.headers}
        if self.etag:
            headers["ETag"] = self.etag
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        # RFC 9110, 13.1.5: strong comparison; anything else requests the whole file.
        same = request.headers.get("if-range") == self.etag and not self.etag.startswith("W/")
        if asked is None or not same or self.ignore_range:
            return Reply(self.body, headers=headers, cut_after=self.cut_after)
        start = int(asked[1])
        if start >= len(self.body):
            return Reply(b"", 416, {"Content-Range": f"bytes */{len(self.body)}"})
        span = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
        headers["Content-Range"] = span if self.content_range is None else self.content_range
        return Reply(self.body[start:], 206, headers, cut_after=self.cut_after)


def in_turn(*handlers: Handler | Reply) -> Handler:
    """Respond with each in turn; the last one is repeated."""
    left = list(handlers)

    def answer(request: Request) -> Reply | bytes | Awaitable[Reply | bytes]:
        found = left.pop(0) if len(left) > 1 else left[0]
        return found(request) if callable(found) else found

    return answer
