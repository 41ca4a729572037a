"""The state of a partial download, and whether a response continues it.

A download is only continued with bytes of the same representation: in RFC 9110, a server identifies
it with a strong ETag (8.8.3) that the client sends back in If-Range (13.1.5). Without one, or in
case of doubt, the download starts again at the first byte.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
import msgspec

from mmindex.core.errors import StorageError, os_errors
from mmindex.fetch.outcome import FetchError, FetchStatus

T = TypeVar("T")

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")

# Space that downloads leave free: the index has to fit as well, and a completely full file system
# makes everything else on the machine fail.
_SPARE_BYTES: Final = 256 << 20


class Sidecar(msgspec.Struct, frozen=True):
    """``NAME.part.json``: describes the bytes in ``NAME.part``.

    Attributes:
        url: their address.
        etag: the strong ETag of the response; empty if there was none.
        length: total bytes of the file; -1 if unknown.
        bytes: how many are valid.
    """

    url: str
    etag: str
    length: int
    bytes: int


class Record(msgspec.Struct, frozen=True):
    """``NAME.json``: the verified facts of a finished file, so that it is not hashed again.

    Attributes:
        url: its address; empty if a user put the file there.
        bytes: size.
        mtime_ns: modification time when it was checked.
        sha256: hex digest.
        md5: hex digest.
        checked: ``sha256`` or ``md5``, the checksum compared; ``first use`` if none is known.
    """

    url: str
    bytes: int
    mtime_ns: int
    sha256: str
    md5: str
    checked: str


def load_sidecar(path: Path, partial: Path) -> Sidecar | None:
    """Read the sidecar, if it and its partial file exist."""
    sidecar = _load(path, Sidecar)
    if sidecar is None or not partial.is_file():
        return None
    with os_errors(partial):
        return sidecar if partial.stat().st_size >= sidecar.bytes else None


def load_record(path: Path) -> Record | None:
    """Read the record of a finished file; None if there is none."""
    return _load(path, Record)


def _load(path: Path, kind: type[T]) -> T | None:
    """Read a small JSON file; None if it is missing or invalid."""
    if not path.is_file():
        return None
    with os_errors(path):
        data = path.read_bytes()
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError:
        return None  # the file only saves work; without it, the work is repeated


def strong_etag(response: aiohttp.ClientResponse) -> str:
    """Return the response's ETag if it is strong, otherwise the empty string."""
    etag = response.headers.get("ETag", "").strip()
    return etag if len(etag) > 2 and etag[0] == '"' == etag[-1] else ""


def resume_headers(sidecar: Sidecar | None, url: str) -> dict[str, str]:
    """Return request headers for the rest of a download; none if it must start again."""
    if sidecar is None or not sidecar.bytes or not sidecar.etag or sidecar.url != url:
        return {}
    return {"Range": f"bytes={sidecar.bytes}-", "If-Range": sidecar.etag}


class MismatchError(Exception):
    """The response does not continue the partial file: start again at the first byte."""


def start_of(response: aiohttp.ClientResponse, sidecar: Sidecar | None) -> tuple[int, int]:
    """Return the offset of a response's first byte, and the size of the whole file.

    Args:
        response: 200 or 206.
        sidecar: the download to continue; None if the whole file was requested.

    Returns:
        (offset, size of the whole file, -1 if unknown).

    Raises:
        MismatchError: the response is not the requested part.
        FetchError: the response is a part although the whole file was requested.
    """
    if response.status != 206:
        return 0, -1 if response.content_length is None else response.content_length
    if sidecar is None:
        raise FetchError(
            FetchStatus.CLIENT_ERROR, "206 for a request of the whole file", http_status=206
        )
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if found is None:
        raise MismatchError("no valid Content-Range")
    first, last, length = (int(number) for number in found.groups())
    if first != sidecar.bytes or last != length - 1 or sidecar.length not in (-1, length):
        raise MismatchError(f"Content-Range {found[0]!r}, but {sidecar.bytes}- was requested")
    if response.content_length not in (None, length - first):
        raise MismatchError("Content-Length and Content-Range disagree")
    if response.headers.get("ETag", sidecar.etag).strip() != sidecar.etag:
        raise MismatchError("the ETag differs from the requested one")
    return first, length


def require_space(folder: Path, needed: int) -> None:
    """Raise StorageError unless ``needed`` more bytes fit, with a reserve."""
    with os_errors(folder):
        free = shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise StorageError(
            f"{folder}: the download needs {needed} bytes, but only {free} are free",
            "free some disk space, or choose another `store`",
        )
