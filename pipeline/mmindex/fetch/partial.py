"""The state of a partial download, and whether a response continues it.

A download is only ever continued with bytes of the very same representation: RFC 9110 lets a
server say so through a strong ETag (8.8.3) that the client sends back in If-Range (13.1.5).
Without one, or with any doubt, it begins again at the first byte.
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

# Left free beside what the downloads need: the index has to fit as well, and a file system
# that is full to the last byte makes everything else on the machine fail.
_SPARE_BYTES: Final = 256 << 20


class Sidecar(msgspec.Struct, frozen=True):
    """``NAME.part.json``: what the bytes in ``NAME.part`` are.

    Attributes:
        url: where they come from.
        etag: the strong ETag they were served under; empty where there was none.
        length: bytes of the whole; -1 where unknown.
        bytes: how many of them are good.
    """

    url: str
    etag: str
    length: int
    bytes: int


class Record(msgspec.Struct, frozen=True):
    """``NAME.json``: the verified facts of a finished file, which save hashing it again.

    Attributes:
        url: where it came from; empty where somebody put it there.
        bytes: size.
        mtime_ns: modification time when it was checked.
        sha256: hex digest.
        md5: hex digest.
        checked: ``sha256`` or ``md5``, what it was compared by; ``first use`` where none is known.
    """

    url: str
    bytes: int
    mtime_ns: int
    sha256: str
    md5: str
    checked: str


def load_sidecar(path: Path, partial: Path) -> Sidecar | None:
    """The sidecar, if it and its partial file exist."""
    sidecar = _load(path, Sidecar)
    if sidecar is None or not partial.is_file():
        return None
    with os_errors(partial):
        return sidecar if partial.stat().st_size >= sidecar.bytes else None


def load_record(path: Path) -> Record | None:
    """The record of a finished file; None if there is none."""
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
        return None  # it only saves work: without it the work is done again


def strong_etag(response: aiohttp.ClientResponse) -> str:
    """The response's ETag if it is strong, else the empty string."""
    etag = response.headers.get("ETag", "").strip()
    return etag if len(etag) > 2 and etag[0] == '"' == etag[-1] else ""


def resume_headers(sidecar: Sidecar | None, url: str) -> dict[str, str]:
    """Request headers for the rest of a download; none if it must start again."""
    if sidecar is None or not sidecar.bytes or not sidecar.etag or sidecar.url != url:
        return {}
    return {"Range": f"bytes={sidecar.bytes}-", "If-Range": sidecar.etag}


class MismatchError(Exception):
    """The response does not continue the partial file: start again at the first byte."""


def start_of(response: aiohttp.ClientResponse, sidecar: Sidecar | None) -> tuple[int, int]:
    """The offset of a response's first byte, and the size of the whole file.

    Args:
        response: 200 or 206.
        sidecar: what was asked to be continued; None where the whole was asked for.

    Returns:
        (offset, length of the whole, -1 where unknown).

    Raises:
        MismatchError: the part is not the one that was asked for.
        FetchError: a part although the whole was asked for.
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
    """Raise StorageError unless ``needed`` more bytes fit, with some to spare."""
    with os_errors(folder):
        free = shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise StorageError(
            f"{folder}: the download needs {needed} bytes, but only {free} are free",
            "free some disk space, or choose another `store`",
        )
