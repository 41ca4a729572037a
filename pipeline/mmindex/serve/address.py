"""Parse and build request URLs with ids and parameters.

File names can contain anything, including lone surrogates, so ids are sent as bytes. If an id is
completely percent-encoded, its slashes are not separators of the path.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request

from mmindex.serve.problems import RequestError

_MOST_PARAMETERS: Final = 200
_REMOVED: Final = frozenset({"", ".", ".."})  # path segments that browsers and proxies remove
_ENDS: Final = frozenset({"thumbnail", "file", "explanation"})  # last segments of routes


def parameters(request: Request) -> QueryParams:
    """Return the parameters in the query string of a request.

    Raises:
        RequestError: there are too many, or they are not UTF-8.
    """
    query = request.scope["query_string"].decode("latin-1")
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            errors="surrogatepass",
            max_num_fields=_MOST_PARAMETERS,
        )
    except UnicodeDecodeError as error:
        raise _not_utf8() from error
    except ValueError as error:
        raise RequestError(
            HTTPStatus.BAD_REQUEST, f"more than {_MOST_PARAMETERS} parameters"
        ) from error
    return QueryParams(pairs)


def image_id_of(request: Request) -> str:
    """Return the image id in the path of a request, which the guard did not decode.

    Raises:
        RequestError: it is not UTF-8.
    """
    try:
        return unquote_to_bytes(request.path_params["id"]).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise _not_utf8() from error


def quoted(image_id: str) -> str:
    """Encode an id for a URL.

    Slashes stay unencoded if possible: some proxies reject or rewrite a path with ``%2F``.
    """
    segments = image_id.split("/")
    unclear = _REMOVED & set(segments) or segments[-1] in _ENDS
    return quote(image_id.encode("utf-8", "surrogatepass"), safe="" if unclear else "/")


def address(path: str, pairs: list[tuple[str, str]]) -> str:
    """Return a path with a query string."""
    query = urlencode(pairs, errors="surrogatepass")
    return f"{path}?{query}" if query else path


def _not_utf8() -> RequestError:
    return RequestError(
        HTTPStatus.BAD_REQUEST, "the URL is not UTF-8", "percent-encode ids and texts in UTF-8"
    )
