"""Digests of forgotten ids, keys and URLs, which every version of a store contains.

The list must exclude an image permanently without containing what was forgotten, so it has digests
only. Even the sha256 of the image's bytes is hashed again, so that nothing in the store can be
matched with a copy of the image by its plain sha256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmindex.core.errors import DataError
from mmindex.store.manifest import ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.snapshot import Snapshot

FORGOTTEN: Final = "forgotten"  # the object's name in a manifest
_SCHEMA: Final = pa.schema(
    [pa.field("what", pa.string(), nullable=False), pa.field("sha256", pa.string(), nullable=False)]
)
_ID, _KEY, _ADDRESS = "id", "key", "address"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Digests (sha256, 32 bytes) of items that must not return.

    Attributes:
        ids: digests of image ids, as UTF-8.
        keys: digests of image keys, each as 64 hex digits.
        addresses: digests of URLs that returned such an image.
    """

    ids: frozenset[bytes] = frozenset()
    keys: frozenset[bytes] = frozenset()
    addresses: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.ids or self.keys or self.addresses)

    def has_id(self, image_id: str) -> bool:
        """Return whether an image with this id was forgotten."""
        return bool(self.ids) and digest(image_id) in self.ids

    def has_key(self, key: str) -> bool:
        """Return whether bytes with this sha256 (hex) were forgotten."""
        return bool(self.keys) and digest(key) in self.keys

    def has_address(self, url: str) -> bool:
        """Return whether this URL returned a forgotten image."""
        return bool(self.addresses) and digest(url) in self.addresses

    def including(self, ids: Iterable[str], keys: Iterable[str], addresses: Iterable[str]) -> Self:
        """Return a copy that also has the digests of these ids, keys and URLs."""
        return type(self)(
            self.ids | {digest(text) for text in ids},
            self.keys | {digest(text) for text in keys},
            self.addresses | {digest(text) for text in addresses},
        )


NOTHING: Final = Forgotten()


def digest(text: str) -> bytes:
    """Return the digest of an id, key or URL: the sha256 of its UTF-8 form."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def rows_among(column: pa.Array[Any], digests: frozenset[bytes]) -> NDArray[np.bool_]:
    """Return which values of a string column are among ``digests``: bool (n,); False for null."""
    values = column.cast(pa.binary()).to_pylist()  # bytes: texts can contain lone surrogates
    sha256 = hashlib.sha256
    return np.fromiter(
        (value is not None and sha256(value).digest() in digests for value in values),
        dtype=np.bool_,
        count=len(values),
    )


def write_forgotten(objects: Objects, forgotten: Forgotten) -> ObjectRef:
    """Write the list as an object of a version; the same list has the same bytes."""
    rows = [
        (what, entry.hex())
        for what, entries in (
            (_ADDRESS, forgotten.addresses),
            (_ID, forgotten.ids),
            (_KEY, forgotten.keys),
        )
        for entry in sorted(entries)
    ]
    columns = [[row[place] for row in rows] for place in range(2)]
    table = pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), schema=_SCHEMA)
    return objects.write_table(FORGOTTEN, _SCHEMA, [table])


def read_forgotten(snapshot: Snapshot) -> Forgotten:
    """Read the list of a version; empty if the version has none.

    Raises:
        DataError: the list is damaged. Continuing without it would restore forgotten items.
    """
    ref = snapshot.manifest.find(FORGOTTEN)
    if ref is None:
        return NOTHING
    found: dict[str, set[bytes]] = {_ID: set(), _KEY: set(), _ADDRESS: set()}
    try:
        rows = snapshot.table(FORGOTTEN).to_pylist()
    except DataError as error:
        hint = "restore this file from a backup: without it, forgotten items could be indexed again"
        raise DataError(error.message, hint) from error
    for row in rows:
        if row["what"] not in found:
            raise DataError(f"{ref.name}: an entry of an unknown kind", "use a newer mmindex")
        found[row["what"]].add(bytes.fromhex(row["sha256"]))
    return Forgotten(*(frozenset(found[what]) for what in (_ID, _KEY, _ADDRESS)))
