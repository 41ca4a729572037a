"""Checks for every request, and headers of every response.

- The Host header must be an address or an allowed name. A page of another site whose host name
  resolves to this machine (DNS rebinding) sends another one.
- A request that sends data must come from a page of this service (Origin), so forms of other sites
  cannot send one (CSRF). Pages of other sites can only link to the service.
- If there is a token, requests must have it, as ``Authorization: Bearer`` or as the cookie that the
  form on ``/login`` sets.
- Bodies have limits on size and time.

Paths are not decoded: only ids contain percent-encoding, see :mod:`.address`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, MutableMapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmindex.core.progress import get_logger
from mmindex.serve.problems import RequestError, problem
from mmindex.serve.protocol import MOST_CONNECTIONS
from mmindex.serve.settings import BODY_TIMEOUT_S, MAX_UPLOAD_BYTES, ServeSettings

COOKIE: Final = "mmindex"
OPEN_PATHS: Final = frozenset({"/login", "/healthz", "/static/style.css", "/static/app.js"})
POLICY: Final = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with "no-referrer", forms are sent with Origin: null
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "geolocation=(), camera=(), microphone=()",
}
_SAFE: Final = frozenset({"GET", "HEAD"})
_ELSEWHERE: Final = frozenset({"cross-site", "same-site"})
_MOST_URL: Final = 8_192
_MOST_HEADERS: Final = 100
_MOST_HEAD_BYTES: Final = 32 << 10
_MOST_FAILURES: Final = 10  # different wrong tokens of one client ...
_FORGIVEN_S: Final = 60.0  # ... in this time
_MOST_CALLERS: Final = 10_000


class Guard:
    """The ASGI middleware.

    Attributes:
        connections: the number of open connections, set by the server.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app = app
        self._settings = settings
        named = (settings.host.strip("[]"), "localhost", *settings.allow_hosts)
        self._hosts = {name.lower() for name in named}
        self.connections: Callable[[], int] = lambda: 0
        self._wrong: dict[str, dict[bytes, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept a request, or respond with the reason for the refusal."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        sender = _with_headers(send)
        scope["path"] = scope["raw_path"].decode("ascii")
        try:
            self._check(scope)
        except RequestError as error:
            if error.status is HTTPStatus.UNAUTHORIZED and _wants_page(scope):
                await RedirectResponse("/login", 303)(scope, receive, sender)
            else:
                await problem(error)(scope, receive, sender)
            return
        await self._app(scope, _limited(receive), sender)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > _MOST_URL:
            raise RequestError(HTTPStatus.REQUEST_URI_TOO_LONG, "the URL is too long")
        if self.connections() > MOST_CONNECTIONS:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", "try again in a second"
            )
        if len(scope["headers"]) > _MOST_HEADERS or _size(scope["headers"]) > _MOST_HEAD_BYTES:
            raise RequestError(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request has too many headers"
            )
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._known(hosts[0]):
            shown = ", ".join(hosts)[:100]
            raise RequestError(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"the host name {shown!r} is not allowed",
                "start it with `allow_host=NAME`",
            )
        if scope["method"] not in _SAFE:
            self._check_origin(headers, hosts[0])
        elif headers.get("sec-fetch-site") in _ELSEWHERE and (
            headers.get("sec-fetch-mode") != "navigate"
        ):
            raise RequestError(HTTPStatus.FORBIDDEN, "pages of other sites cannot use this service")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise RequestError(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
        if int(length[:20]) > MAX_UPLOAD_BYTES:
            raise too_large()
        if self._settings.token is not None and scope["path"] not in OPEN_PATHS:
            self._check_token(headers, caller_of(scope))

    def _known(self, host: str) -> bool:
        if not _plain(host):
            return False
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # such as an unclosed bracket
            return False
        try:
            ip_address(name)
        except ValueError:
            return name.lower() in self._hosts
        return True  # DNS rebinding needs a name

    @staticmethod
    def _check_origin(headers: Headers, host: str) -> None:
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "same-origin")
        own = origin is None or _host_of(origin) == host.lower()
        # Programs send neither header, and a page cannot prevent a browser from sending them.
        if not own or site not in ("same-origin", "none"):
            raise RequestError(
                HTTPStatus.FORBIDDEN,
                f"a page of {(origin or 'another site')[:100]} cannot send this request",
                "send it from the pages of this service, or from a program",
            )

    def _check_token(self, headers: Headers, caller: str) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip(), caller):
            return
        if (cookie := _cookie(headers)) and self._is_right(cookie, self.cookie_value(), caller):
            return
        raise RequestError(
            HTTPStatus.UNAUTHORIZED,
            "a token is required",
            "send it as `Authorization: Bearer TOKEN`, or enter it at /login",
        )

    def is_token(self, given: str, caller: str) -> bool:
        """Return whether this is the token, in constant time.

        Args:
            given: the token from the client.
            caller: the address of the client.

        Raises:
            RequestError: this client sent too many wrong tokens in the last minute.
        """
        return self._is_right(given, self._settings.token or "", caller)

    def _is_right(self, given: str, secret: str, caller: str) -> bool:
        now = time.monotonic()
        for one, tried in list(self._wrong.items()):
            kept = {text: moment for text, moment in tried.items() if now - moment < _FORGIVEN_S}
            self._wrong[one] = kept
            if not kept:
                del self._wrong[one]
        # A client that repeats the same wrong token, such as an old cookie, is not guessing.
        if len(self._wrong.get(caller, ())) >= _MOST_FAILURES:
            raise RequestError(
                HTTPStatus.TOO_MANY_REQUESTS, "too many wrong tokens", "wait a minute"
            )
        sent = given.encode("utf-8", "surrogatepass")
        right = hmac.compare_digest(sent, secret.encode())
        if not right and len(self._wrong) < _MOST_CALLERS:
            self._wrong.setdefault(caller, {})[hashlib.sha256(sent).digest()] = now
            get_logger("serve").warning("a client sent a wrong token", caller=caller)
        return right

    def cookie_value(self) -> str:
        """Return the value of the cookie, which does not reveal the token."""
        token = (self._settings.token or "").encode()
        return hmac.new(token, b"mmindex serve cookie", hashlib.sha256).hexdigest()


def caller_of(scope: Scope) -> str:
    """Return the address of the client."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def too_large() -> RequestError:
    """Return the error for a body above the limit."""
    return RequestError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the upload is larger than {MAX_UPLOAD_BYTES >> 20} MiB",
        "send a smaller image",
    )


def _size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in headers)


def _host_of(origin: str) -> str:
    """Return the host and port of an origin; empty if it is invalid."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _plain(host: str) -> bool:
    return host.isascii() and not any(char in host for char in "/\\@?# \t,")


def _cookie(headers: Headers) -> str:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _wants_page(scope: Scope) -> bool:
    accepts = Headers(scope=scope).get("accept", "")
    return scope["method"] in _SAFE and "text/html" in accepts and "/api/" not in scope["path"]


def _with_headers(send: Send) -> Send:
    async def sender(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Content-Security-Policy", POLICY)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sender


def _limited(receive: Receive) -> Receive:
    """Receive the body, with limits on size and time."""
    got = 0
    ends = asyncio.get_running_loop().time() + BODY_TIMEOUT_S

    async def receiver() -> Message:
        nonlocal got
        try:
            async with asyncio.timeout_at(ends if got >= 0 else None):
                message = await receive()
        except TimeoutError:
            raise RequestError(
                HTTPStatus.REQUEST_TIMEOUT, "the request took too long to arrive"
            ) from None
        if message["type"] == "http.request":
            got += len(message.get("body", b""))
            if got > MAX_UPLOAD_BYTES:
                raise too_large()
            if not message.get("more_body"):
                got = -1  # further messages only wait for the client to disconnect
        return message

    return receiver
