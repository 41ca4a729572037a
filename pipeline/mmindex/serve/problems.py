"""Errors in RFC 9457 format (application/problem+json), and the HTTP status of each error."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.responses import Response

from mmindex.core.display import inert_json
from mmindex.core.errors import (
    BusyError,
    MmindexError,
    ModelMismatchError,
    NoInputError,
    NoVectorError,
    UsageError,
)

RETRY_AFTER_S: Final = "1"
_STATUS: Final = (
    (UsageError, HTTPStatus.BAD_REQUEST),
    (NoVectorError, HTTPStatus.BAD_REQUEST),
    (NoInputError, HTTPStatus.NOT_FOUND),
    (BusyError, HTTPStatus.SERVICE_UNAVAILABLE),
    (ModelMismatchError, HTTPStatus.INTERNAL_SERVER_ERROR),
)


class RequestError(MmindexError):
    """A request that fails, with its HTTP status."""

    def __init__(self, status: HTTPStatus, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status


class UploadError(RequestError):
    """An uploaded image or text is invalid."""

    def __init__(self, message: str) -> None:
        super().__init__(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)


class ImageError(RequestError):
    """An image in the corpus cannot be shown: it is missing, or cannot be decoded."""

    def __init__(self, message: str) -> None:
        super().__init__(HTTPStatus.NOT_FOUND, message, "run `mmindex build` to update the store")


def status_of(error: MmindexError) -> HTTPStatus:
    """Return the HTTP status of an error."""
    if isinstance(error, RequestError):
        return error.status
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem(error: MmindexError, further: Mapping[str, str] | None = None) -> Response:
    """Return an error as JSON with detail and remedy; ``further``: additional headers."""
    status = status_of(error)
    hidden = status is HTTPStatus.INTERNAL_SERVER_ERROR
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": INTERNAL if hidden else error.message,
        **({"remedy": error.hint} if error.hint and not hidden else {}),
    }
    headers = {**(further or {}), **({"Retry-After": RETRY_AFTER_S} if _later(status) else {})}
    return Response(json_bytes(body), int(status), headers, media_type="application/problem+json")


def json_bytes(record: Any) -> bytes:
    """Encode a record as JSON that is safe to print in a terminal."""
    try:
        data = msgspec.json.encode(record)
    except UnicodeEncodeError:  # a lone surrogate
        data = b"\x7f"
    plain_ascii = data.isascii() and b"\x7f" not in data
    # The slow way, for records that can contain hidden characters.
    return data if plain_ascii else inert_json(record, compact=True).encode()


def _later(status: HTTPStatus) -> bool:
    return status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)


INTERNAL: Final = "the service cannot process this request; its log contains the reason"
