"""Records divided by range into scratch files, so that memory does not grow with a corpus.

A corpus of a billion keys has 32 GB of them. Sorting and comparing them needs only the keys of one
range at a time. Records are written once in any order, and read once, range by range. The files
have no name, so nothing stays if the process is killed.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import os_errors

# Records of one range: 160 MB of keys, and about three times as much while they are compared.
RANGE_RECORDS = 1 << 22
_MOST_RANGES = 256
_BUFFER_BYTES = 1 << 16
_KEY_BYTES = 32

# A key and a number that belongs to it.
KEYED = np.dtype([("key", f"S{_KEY_BYTES}"), ("number", "<i8")])

Int64 = NDArray[np.int64]


def ranges_for(records: int) -> int:
    """Return the number of ranges for this many records."""
    return max(1, min(_MOST_RANGES, -(-records // RANGE_RECORDS)))


class Buckets:
    """Records by range; a context manager that releases them. A single range stays in memory.

    Args:
        folder: where to put the files.
        dtype: the type of a record.
        count: the number of ranges.

    Raises:
        StorageError: the disk is full.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], count: int) -> None:
        self._folder, self._dtype = folder, dtype
        with os_errors(folder):
            self._files: list[IO[bytes]] = (
                [scratch_file(folder) for _ in range(count)] if count > 1 else [io.BytesIO()]
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            file.close()

    def put(self, ranges: Int64, records: NDArray[Any]) -> None:
        """Add records (n,) to the ranges int64 (n,); within a range, they stay in order."""
        small = ranges.astype(np.uint8)  # sorted by radix, in a sixth of the time
        order = np.argsort(small, kind="stable")
        ends = np.cumsum(np.bincount(small, minlength=len(self._files)))
        first = 0
        with os_errors(self._folder):
            for file, end in zip(self._files, ends.tolist(), strict=True):
                if first < end:
                    file.write(records[order[first:end]].tobytes())
                first = end

    def put_keys(self, keys: NDArray[np.bytes_], numbers: Int64) -> None:
        """Add keys S32 (n,) with numbers int64 (n,), by range of the keys' first bytes."""
        records = np.empty(len(keys), KEYED)
        records["key"], records["number"] = keys, numbers
        first = records.view(np.uint8).reshape(-1, KEYED.itemsize)[:, 0].astype(np.int64)
        self.put(first * len(self._files) // 256, records)

    def take_all(self) -> Iterator[NDArray[Any]]:
        """Yield the records of each range, and release them."""
        for file in self._files:
            with os_errors(self._folder):
                file.seek(0)
                data = file.read()
                file.close()
            yield np.frombuffer(data, self._dtype)


def scratch_file(folder: Path) -> IO[bytes]:
    """Open a file without a name."""
    return tempfile.TemporaryFile(dir=folder, buffering=_BUFFER_BYTES)


def mapped(file: IO[bytes], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Map a scratch file of records; its pages are read as needed, and it may be closed."""
    file.flush()
    if not file.tell():  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.memmap(file, dtype, mode="r")
