"""A server on loopback that behaves like the model hub."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(slots=True)
class Hub:
    """The content and the behaviour of the server.

    Attributes:
        files: content by ``org/repo/name``.
        mode: ``ok``, or ``503``, ``404`` (no repository), ``truncated`` (bodies end early),
            ``swapped`` (bodies are not what was announced), ``down-after-head``.
        asked: ``METHOD path`` of every request.
        url: for ``HF_ENDPOINT``.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    mode: str = "ok"
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        path = urlsplit(handler.path).path
        self.asked.append(f"{handler.command} {path}")
        repository, _, name = path.strip("/").partition("/resolve/main/")
        data = self.files.get(f"{repository}/{name}")
        known = {key.rsplit("/", 1)[0] for key in self.files}
        if self.mode == "503" or (self.mode == "down-after-head" and with_body):
            _reply(handler, 503, {})
        elif self.mode == "404" or repository not in known:
            _reply(handler, 404, {"X-Error-Code": "RepoNotFound"})
        elif data is None:
            _reply(handler, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            digest = hashlib.sha256(data).hexdigest()
            body = data[::-1] if self.mode == "swapped" else data
            headers = {
                "ETag": f'"{digest}"',
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(data)),
                "X-Repo-Commit": COMMIT,
                "Content-Length": str(len(data)),
            }
            if self.mode == "truncated":
                body = body[: len(body) // 2]
            _reply(handler, 200, headers, body if with_body else b"")


def _reply(
    handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes = b""
) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": "0", **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:  # the name that the base class uses
            hub.answer(self, with_body=False)

        def do_GET(self) -> None:
            hub.answer(self, with_body=True)

        def log_message(self, *_args: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
