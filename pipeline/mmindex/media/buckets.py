"""List and read objects of Amazon S3, Google Cloud Storage and Azure Blob Storage, with obstore.

A location is ``s3://BUCKET/KEY``, ``gs://BUCKET/KEY`` or ``az://CONTAINER/KEY``, with the key
unescaped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from mmindex.core.errors import DataError, NoInputError
from mmindex.core.memo import Memo
from mmindex.core.records import ItemError, Reason, Stamp
from mmindex.media.services import obstore, service_errors, split_location, store_of

_KNOWN: Final = 16_384  # an entry has about 300 bytes


@dataclass(frozen=True, slots=True)
class Listed:
    """An object, as described by a listing or a HEAD request.

    Attributes:
        location: its location, see above.
        size: in bytes.
        version: its ETag, or its generation; changes with every write.
        is_etag: whether ``version`` is an ETag, so that reads can require it.
    """

    location: str
    size: int
    version: str
    is_etag: bool

    @property
    def stamp(self) -> Stamp:
        """Size, 0, and a digest of the version: equal as long as the object is the same."""
        digest = hashlib.sha256(self.version.encode()).digest()
        return self.size, 0, int.from_bytes(digest[:7], "big")


def child(folder: str, name: str) -> str:
    """Return the location of ``name`` below a folder."""
    return f"{folder.rstrip('/')}/{name}"


def head(location: str) -> Listed | None:
    """Request the properties of an object; None if it does not exist.

    Raises:
        MmindexError: the service cannot be reached or refuses access.
    """
    scheme, bucket, key = split_location(location)
    if not key or key.endswith("/"):
        return None
    try:
        with service_errors(location):
            meta = obstore().head(store_of(scheme, bucket), key)
    except NoInputError:
        return None
    found = _listed(scheme, bucket, meta)
    learn(found)
    return found


def learn(found: Listed) -> None:
    """Keep the properties of an archive or table from a listing, to save a HEAD request."""
    _known.put(found.location, found)


def forget(location: str) -> None:
    """Forget the properties of an object, so that the next use requests them again."""
    _known.drop(location)


def info(location: str) -> Listed:
    """Return the properties of an object; each process requests them once.

    Raises:
        NoInputError: there is no such object.
        MmindexError: the service cannot be reached or refuses access.
    """

    def ask() -> Listed:
        found = head(location)
        if found is None:
            raise NoInputError(f"{location}: no such object")
        return found

    return _known.get(location, ask)


def walk(prefix: str) -> Iterator[Listed]:
    """Yield all objects below a folder, in the order of the service.

    Raises:
        NoInputError: there is no such bucket.
        DataError: a key has an empty or relative part, which cannot be read.
        MmindexError: the service cannot be reached or refuses access.
    """
    scheme, bucket, key = split_location(prefix)
    with service_errors(prefix):
        for chunk in obstore().list(store_of(scheme, bucket), key.rstrip("/") or None):
            for meta in chunk:
                yield _listed(scheme, bucket, meta)


def children(folder: str) -> list[Listed]:
    """Return the objects in a folder, without those of its subfolders; raises as :func:`walk`."""
    scheme, bucket, key = split_location(folder)
    with service_errors(folder):
        found = obstore().list_with_delimiter(store_of(scheme, bucket), key.rstrip("/") or None)
    return [_listed(scheme, bucket, meta) for meta in found["objects"]]


def read_object(location: str, max_bytes: int) -> bytes:
    """Read a whole object with one request.

    Raises:
        ItemError: it is missing, or larger than ``max_bytes``.
        MmindexError: the service cannot be reached or refuses access.
    """
    scheme, bucket, key = split_location(location)
    try:
        with service_errors(location):
            answer = obstore().get(store_of(scheme, bucket), key)
            if (size := answer.meta["size"]) > max_bytes:
                raise ItemError(Reason.TOO_LARGE, f"{size} bytes, the limit is {max_bytes}")
            return cast("bytes", answer.bytes().to_bytes())
    except NoInputError as error:
        raise ItemError(Reason.MISSING, error.message) from error
    except DataError as error:
        raise ItemError(Reason.UNREADABLE, error.message) from error


def read_range(location: str, start: int, size: int, etag: str | None = None) -> bytes:
    """Read a part of an object with one request.

    Args:
        location: the object.
        start: the first byte.
        size: the number of bytes; fewer come back only at the end of the object.
        etag: read only if the object still has this ETag.

    Raises:
        ItemError: the object has changed.
        NoInputError: there is no such object.
        MmindexError: the service cannot be reached or refuses access.
    """
    if size <= 0:
        return b""
    scheme, bucket, key = split_location(location)
    options: dict[str, Any] = {"range": (start, start + size)}
    if etag is not None:
        options["if_match"] = etag
    with service_errors(location):
        answer = obstore().get(store_of(scheme, bucket), key, options=options)
        return cast("bytes", answer.bytes().to_bytes())


_known: Memo[Listed] = Memo(_KNOWN)


def _listed(scheme: str, bucket: str, meta: Any) -> Listed:
    etag, generation = meta["e_tag"], meta["version"]
    # Without either, the time of the change: listings and HEAD requests agree only on seconds.
    version = etag or generation or str(int(meta["last_modified"].timestamp()))
    location = f"{scheme}://{bucket}/{meta['path']}"
    return Listed(location, meta["size"], version, etag is not None)
