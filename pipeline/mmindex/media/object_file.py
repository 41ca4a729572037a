"""An object of an object store as a file, for libraries that read files."""

from __future__ import annotations

import io
import os
from typing import Any, Final

from mmindex.core.memo import Memo
from mmindex.core.records import ItemError, Reason
from mmindex.media import buckets

# The headers of an archive are read in blocks: small members share a block, large ones are skipped.
_BLOCK_BYTES: Final = 2 << 20
_BLOCKS: Final = 16

_blocks: Memo[bytes] = Memo(_BLOCKS)


class ObjectFile(io.RawIOBase):
    """A readable and seekable file for an object.

    Small reads fetch blocks that all files of this process share; large reads fetch
    only their own bytes. All reads are of the same version of the object.

    Raises:
        MmindexError: as :func:`mmindex.media.buckets.info`; also on reads.
        ItemError: on reads, if the object has changed since it was opened.
    """

    def __init__(self, location: str) -> None:
        super().__init__()
        self._info = buckets.info(location)
        self._place = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._info.size}[whence]
        if base + offset < 0:
            raise ValueError(f"a negative position: {base + offset}")
        self._place = base + offset
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        """Read up to ``size`` bytes; fewer only at the end of the object."""
        left = max(0, self._info.size - self._place)
        size = left if size is None or size < 0 else min(size, left)
        data = self._large(size) if size >= _BLOCK_BYTES else self._small(size)
        self._place += len(data)
        return data

    def readall(self) -> bytes:
        """Read to the end."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _large(self, size: int) -> bytes:
        return self._fetch(self._place, size)

    def _small(self, size: int) -> bytes:
        parts = []
        place, end = self._place, self._place + size
        while place < end:
            number, skip = divmod(place, _BLOCK_BYTES)
            part = self._block(number)[skip : skip + end - place]
            if not part:
                break
            parts.append(part)
            place += len(part)
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        start = number * _BLOCK_BYTES
        size = min(_BLOCK_BYTES, self._info.size - start)
        name = f"{number} {self._info.version} {self._info.location}"
        return _blocks.get(name, lambda: self._fetch(start, size))

    def _fetch(self, start: int, size: int) -> bytes:
        etag = self._info.version if self._info.is_etag else None
        try:
            data = buckets.read_range(self._info.location, start, size, etag)
        except ItemError:
            buckets.forget(self._info.location)
            raise
        if len(data) != size:
            raise ItemError(Reason.CHANGED, f"{len(data)} bytes, the object listed {size}")
        return data
