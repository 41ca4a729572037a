"""The service as an ASGI application, and the server that runs it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http import HTTPStatus
from importlib import resources
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mmindex.core.errors import CannotCreateError, MmindexError
from mmindex.core.progress import get_logger
from mmindex.pages.page import stylesheet
from mmindex.serve.api import api_routes
from mmindex.serve.guard import Guard
from mmindex.serve.problems import RequestError, problem
from mmindex.serve.protocol import TimedH11Protocol
from mmindex.serve.service import Service
from mmindex.serve.settings import EXIT_S, SHUTDOWN_S, ServeSettings
from mmindex.serve.web import SHEETS, pages_routes

_MOST_HEAD_BYTES = 32 << 10


def make_app(service: Service) -> tuple[ASGIApp, Guard]:
    """Return the application for an open service, and its guard."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        service.close()

    app = Starlette(
        exception_handlers={
            MmindexError: _failed(service),  # type: ignore[dict-item]  # of its own kind of error
            HTTPException: _refused,  # type: ignore[dict-item]
            Exception: _broken,
        },
        lifespan=lifespan,
    )
    guard = Guard(app, service.settings)
    app.router.routes.extend(
        [*api_routes(service), *pages_routes(service, guard), *_plain_routes(service)]
    )
    return _Counted(guard, service), guard


class _Counted:
    """Counts every response with its route and duration."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]  # ASGI
        started, status = time.perf_counter(), 500

        async def sender(message) -> None:  # type: ignore[no-untyped-def]
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sender)
        finally:
            if scope["type"] == "http":
                route = scope.get("route")
                name = route.name if isinstance(route, Route) else "none"
                self._service.metrics.count(name, status, time.perf_counter() - started)


def _plain_routes(service: Service) -> list[Route]:
    sheets = {name: stylesheet(files) for name, files in SHEETS.items()}
    script = (resources.files("mmindex.serve") / "static" / "app.js").read_text("utf-8")
    kept = {"Cache-Control": "private, max-age=3600"}

    async def style(request: Request) -> Response:
        css = sheets.get(request.path_params["name"])
        if css is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return Response(css, media_type="text/css", headers=kept)

    async def app_script(_: Request) -> Response:
        return Response(script, media_type="text/javascript", headers=kept)

    async def icon(_: Request) -> Response:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=kept)

    async def health(_: Request) -> Response:
        if service.live.problem is not None:
            return PlainTextResponse("failing: see the log\n", HTTPStatus.SERVICE_UNAVAILABLE)
        return PlainTextResponse(f"serving version {service.live.current.number}\n")

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return [
        Route("/static/{name}.css", style, name="style"),
        Route("/static/app.js", app_script, name="script"),
        Route("/favicon.ico", icon, name="icon"),
        Route("/healthz", health, name="health"),
        Route("/metrics", metrics, name="metrics"),
    ]


def _failed(service: Service) -> Callable[[Request, MmindexError], Awaitable[Response]]:
    async def handle(_: Request, error: MmindexError) -> Response:
        service.note(error)
        return problem(error)

    return handle


async def _refused(_: Request, error: HTTPException) -> Response:
    refusal = RequestError(HTTPStatus(error.status_code), str(error.detail))
    return problem(refusal, error.headers)


async def _broken(_: Request, error: Exception) -> Response:
    get_logger("serve").error("a request failed", why=f"{type(error).__name__}: {error}")
    return problem(
        RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "the service cannot process this request")
    )


def listen(settings: ServeSettings) -> socket.socket:
    """Open the socket to serve on.

    Raises:
        CannotCreateError: the port is in use, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((settings.host.strip("[]"), settings.port))
        server.listen(1024)
    except OSError as error:
        server.close()
        raise CannotCreateError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}",
            "choose another `port`, or stop the program that uses it",
        ) from error
    return server


class _Server(uvicorn.Server):
    """A server that exits with its own exit code; uvicorn's raises the signal again.

    ``on_start`` is called when the server handles requests and signals.
    """

    on_start: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then call ``on_start``."""
        await super().startup(sockets)
        if self.on_start is not None and self.started:
            self.on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop even if a thread is busy, because a long computation cannot be interrupted."""
        super().handle_exit(sig, frame)
        last = threading.Timer(EXIT_S, _leave)
        last.daemon = True
        last.start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        told = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in told}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _leave() -> None:
    get_logger("serve").warning("stopped before all work was done", seconds=EXIT_S)
    os._exit(0)  # only thumbnails are written, each completely


def serving(service: Service) -> _Server:
    """Return the server for an open service, not started."""
    settings = service.settings
    app, guard = make_app(service)
    config = uvicorn.Config(
        app,
        http=TimedH11Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=SHUTDOWN_S,
        ssl_certfile=settings.certfile,
        ssl_keyfile=settings.keyfile,
    )
    server = _Server(config)
    guard.connections = lambda: len(server.server_state.connections)
    return server


def run(service: Service, server: socket.socket, on_start: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then complete active requests within a few seconds."""
    one = serving(service)
    one.on_start = on_start
    one.run(sockets=[server])
