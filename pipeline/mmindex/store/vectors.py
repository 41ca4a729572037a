"""Unit vectors on disk: float16 (n, dim), C order, memory-mapped, checked block by block.

A ``vectors`` object is raw float16; beside it stands a ``digests`` object: the sha256 of each
1-MiB block, which is itself verified whole when the reader opens. So opening costs nothing in n,
and no block is used before it was checked. Segments make that a nightly change appends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmindex.errors import DataError, InternalError
from mmindex.store.manifest import Manifest, ObjectRef
from mmindex.store.objects import Objects
from mmindex.store.publish import StagedFile

BLOCK_BYTES = 1 << 20  # hashing one costs about a millisecond, the most a cold look-up waits
_DIGEST_BYTES = 32
Float16 = NDArray[np.float16]


def write_segment(
    objects: Objects, modality: str, number: int, dim: int, blocks: Iterable[Float16]
) -> tuple[ObjectRef, ObjectRef]:
    """Write one segment of vectors and its block digests.

    Args:
        objects: where to write.
        modality: ``image`` or ``text``.
        number: position of the segment among the modality's segments, from 0.
        dim: number of columns.
        blocks: float16 (any, dim) arrays, C order, any sizes.

    Returns:
        the references of the ``vectors`` and of the ``digests`` object.
    """
    hasher = _BlockHasher()

    def fill(staged: StagedFile) -> int:
        rows = 0
        for block in blocks:
            if block.dtype != np.float16 or block.ndim != 2 or block.shape[1] != dim:
                raise InternalError(f"vectors: got {block.dtype} {block.shape}, dim is {dim}")
            data = np.ascontiguousarray(block).data.cast("B")
            staged.write(data)
            hasher.update(data)
            rows += len(block)
        return rows

    vectors = objects.write(f"vectors/{modality}/{number:05d}", fill)
    digests = hasher.finish()

    def fill_digests(staged: StagedFile) -> int:
        staged.write(b"".join(digests))
        return len(digests)

    return vectors, objects.write(f"digests/{modality}/{number:05d}", fill_digests)


class _BlockHasher:
    """Cuts a byte stream into blocks of ``BLOCK_BYTES`` and hashes each."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []
        self._hash = hashlib.sha256()
        self._room = BLOCK_BYTES

    def update(self, data: memoryview) -> None:
        while data.nbytes:
            part = data[: self._room]
            self._hash.update(part)
            self._room -= part.nbytes
            data = data[part.nbytes :]
            if not self._room:
                self._close_block()

    def _close_block(self) -> None:
        self._digests.append(self._hash.digest())
        self._hash = hashlib.sha256()
        self._room = BLOCK_BYTES

    def finish(self) -> list[bytes]:
        if self._room != BLOCK_BYTES:
            self._close_block()
        return self._digests


@dataclass(slots=True)
class _Segment:
    first: int
    matrix: Float16
    raw: NDArray[np.uint8]
    digests: bytes
    where: str
    checked: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.checked = np.zeros(len(self.digests) // _DIGEST_BYTES, dtype=bool)

    def check_blocks(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            if self.checked[block]:
                continue
            data = self.raw[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
            expected = self.digests[block * _DIGEST_BYTES : (block + 1) * _DIGEST_BYTES]
            if hashlib.sha256(data.data).digest() != expected:
                raise DataError(
                    f"{self.where}: block {block} is damaged", "run `mmindex check --full`"
                )
            self.checked[block] = True

    def rows(self, rows: NDArray[np.int64]) -> Float16:
        row_bytes = self.matrix.shape[1] * 2
        first = rows * row_bytes // BLOCK_BYTES
        last = ((rows + 1) * row_bytes - 1) // BLOCK_BYTES
        # A row is far smaller than a block, so it touches one block or two neighbours.
        touched = np.concatenate([first, last])
        unchecked = touched[~self.checked[touched]]
        if len(unchecked):
            self.check_blocks(np.unique(unchecked).tolist())
        return self.matrix[rows]


class Vectors:
    """The vectors of one modality, by row number; row i belongs to faiss id i.

    Attributes:
        n: number of rows.
        dim: number of columns.
    """

    def __init__(self, objects: Objects, manifest: Manifest, modality: str) -> None:
        """Map the segments.

        Raises:
            DataError: a segment is missing, has another size, or its digests are damaged.
        """
        info = manifest.indexes[modality]
        self._map_all(objects, manifest.objects, modality, info.dim)
        if self.n != info.n:
            raise DataError(f"{modality} vectors: {self.n} rows, the index has {info.n}")

    @classmethod
    def of_refs(
        cls, objects: Objects, refs: Sequence[ObjectRef], modality: str, dim: int
    ) -> Vectors:
        """Map segments that no manifest lists yet; ``refs`` holds them and their digests.

        Raises:
            DataError: a segment is missing, has another size, or its digests are damaged.
        """
        vectors = cls.__new__(cls)
        vectors._map_all(objects, refs, modality, dim)
        return vectors

    def _map_all(
        self, objects: Objects, refs: Sequence[ObjectRef], modality: str, dim: int
    ) -> None:
        self.dim = dim
        self._segments: list[_Segment] = []
        by_name = {ref.name: ref for ref in refs}
        first = 0
        for ref in refs:
            if ref.name.startswith(f"vectors/{modality}/"):
                digests = by_name.get(ref.name.replace("vectors/", "digests/", 1))
                self._segments.append(self._map(objects, ref, digests, first))
                first += ref.rows
        self.n = first
        self._starts = np.array([segment.first for segment in self._segments], dtype=np.int64)

    def _map(
        self, objects: Objects, ref: ObjectRef, digest_ref: ObjectRef | None, first: int
    ) -> _Segment:
        if digest_ref is None:
            raise DataError(f"{ref.name}: the manifest lists no digests for it")
        digests = objects.path(digest_ref).read_bytes()
        blocks = -(-ref.bytes // BLOCK_BYTES)
        if len(digests) != blocks * _DIGEST_BYTES or ref.bytes != ref.rows * self.dim * 2:
            raise DataError(f"{ref.name}: size and digests do not fit together")
        path = objects.unverified_path(ref)
        raw: NDArray[np.uint8] = (
            # A plain view of the mapping: the memmap class costs microseconds at each access.
            np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
            if ref.bytes
            else np.empty(0, dtype=np.uint8)
        )
        matrix = raw.view(np.float16).reshape(ref.rows, self.dim)
        return _Segment(first, matrix, raw, digests, f"{path} ({ref.name})")

    def take(self, ids: NDArray[np.int64]) -> Float16:
        """The vectors of these rows: float16 (len(ids), dim), in the order asked.

        Raises:
            DataError: a block that holds one of them is damaged.
            IndexError: an id is negative or not below ``n``.
        """
        if len(ids) and (ids.min() < 0 or ids.max() >= self.n):
            raise IndexError(f"ids must be in 0..{self.n - 1}")
        if len(self._segments) == 1:
            return self._segments[0].rows(ids)
        out = np.empty((len(ids), self.dim), dtype=np.float16)
        owners = np.searchsorted(self._starts, ids, side="right") - 1
        for number in np.unique(owners).tolist():
            segment, mine = self._segments[number], owners == number
            out[mine] = segment.rows(ids[mine] - segment.first)
        return out

    def blocks(self, rows: int) -> Iterator[tuple[int, Float16]]:
        """Stream ``(first row, float16 (m, dim))`` with m <= ``rows``, in id order, verified."""
        for segment in self._segments:
            for start in range(0, len(segment.matrix), rows):
                stop = min(start + rows, len(segment.matrix))
                row_bytes = self.dim * 2
                segment.check_blocks(
                    range(
                        start * row_bytes // BLOCK_BYTES, (stop * row_bytes - 1) // BLOCK_BYTES + 1
                    )
                )
                yield segment.first + start, segment.matrix[start:stop]
