"""One ``vectors`` object, memory-mapped: no block of it is used before its digest was checked."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmindex.core.errors import DataError, os_errors
from mmindex.store import sq8
from mmindex.store.manifest import ObjectRef

BLOCK_BYTES = 1 << 20  # hashing one costs about a millisecond, the most a cold look-up waits
DIGEST_BYTES = 32
Float16 = NDArray[np.float16]


@dataclass(slots=True)
class Segment:
    """Rows of vectors that lie in one file.

    Attributes:
        first: id of its first row.
        matrix: float16 (n, dim), or uint8 (n, dim + 4) as :mod:`mmindex.store.sq8` packs it.
        raw: the file's bytes.
        mapping: what ``raw`` is a view of; None where the file is empty.
        digests: sha256 of each block.
        where: its file and name, for messages.
    """

    first: int
    matrix: NDArray[Any]
    raw: NDArray[np.uint8]
    mapping: mmap.mmap | None
    digests: bytes
    where: str
    checked: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.checked = np.zeros(len(self.digests) // DIGEST_BYTES, dtype=bool)

    @classmethod
    def of_file(cls, path: Path, ref: ObjectRef, dim: int, digests: bytes, first: int) -> Segment:
        """Map a file that has its size.

        Raises:
            DataError: its size is neither that of float16 nor that of packed rows, or there are
                not as many digests as blocks.
        """
        plain = ref.bytes == ref.rows * dim * 2
        packed = dim >= sq8.LEAST_DIM and ref.bytes == ref.rows * sq8.row_bytes(dim)
        blocks = -(-ref.bytes // BLOCK_BYTES)
        if len(digests) != blocks * DIGEST_BYTES or not (plain or packed):
            raise DataError(f"{ref.name}: size and digests do not fit together")
        mapping = None
        if ref.bytes:
            with os_errors(path), path.open("rb") as file:
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        raw = np.frombuffer(mapping or b"", dtype=np.uint8)
        matrix: NDArray[Any] = raw.view(np.float16) if plain else raw
        matrix = matrix.reshape(ref.rows, dim if plain else sq8.row_bytes(dim))
        return cls(first, matrix, raw, mapping, digests, f"{path} ({ref.name})")

    def rows(self, rows: NDArray[np.int64]) -> Float16:
        """These rows of the segment: float16 (len(rows), dim), a copy.

        Raises:
            DataError: a block that holds one of them is damaged.
        """
        row_bytes = self.matrix.strides[0]
        first = rows * row_bytes // BLOCK_BYTES
        last = ((rows + 1) * row_bytes - 1) // BLOCK_BYTES
        # A row is far smaller than a block, so it touches one block or two neighbours.
        touched = np.concatenate([first, last])
        unchecked = touched[~self.checked[touched]]
        if len(unchecked):
            self._check(np.unique(unchecked).tolist())
        return _unpacked(self.matrix[rows])

    def part(self, start: int, stop: int) -> Float16:
        """Neighbouring rows: float16 (stop - start, dim).

        Raises:
            DataError: a block that holds one of them is damaged.
        """
        row_bytes = self.matrix.strides[0]
        blocks = range(start * row_bytes // BLOCK_BYTES, (stop * row_bytes - 1) // BLOCK_BYTES + 1)
        self._check(blocks)
        return _unpacked(self.matrix[start:stop])

    def let_go(self) -> None:
        """Take the file's pages out of this process: a full scan would leave all of them in it.

        They stay in the system's cache, and come back when they are touched.
        """
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED)

    def _check(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            if self.checked[block]:
                continue
            data = self.raw[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
            expected = self.digests[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]
            if hashlib.sha256(data.data).digest() != expected:
                raise DataError(
                    f"{self.where}: block {block} is damaged", "run `mmindex check --full`"
                )
            self.checked[block] = True


def _unpacked(rows: NDArray[Any]) -> Float16:
    return sq8.unpack(rows) if rows.dtype == np.uint8 else rows
